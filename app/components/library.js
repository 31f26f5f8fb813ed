// Fetches what every page draws with while the server is still at its first imports: the copy of plotly.js that the
// Python package brings along, once for all figures.

export default function ({ data }) {
  window.plotlyLoading ??= new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = data.address;
    script.onload = done;
    script.onerror = failed;
    document.head.append(script);
  });
}
