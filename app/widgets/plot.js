// Draws a Plotly figure and updates it in place. `st.plotly_chart` rebuilds every changed figure, which is too slow for
// a slider, and does not report the clicked cell of a heatmap.

const shown = new WeakMap(); // root element → the latest figure
const waiting = new WeakMap(); // root element → how to draw it, once it is scrolled into view
const looks = new WeakMap(); // root element → the drawn figure as text: Plotly is slow to detect that nothing changed

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".plot");
  root.style.minHeight = `${data.figure.layout.height}px`;
  root.setAttribute("role", "figure"); // not an image: it holds buttons
  root.setAttribute("aria-label", data.alt);
  const wanted = { ...data, setTriggerValue };
  shown.set(root, wanted);
  root.classList.toggle("clickable", data.clickable);
  const draw = () => shown.get(root) === wanted && whenVisible(root, () => drawFigure(root, wanted));
  const scheme = window.matchMedia("(prefers-color-scheme: dark)");
  const recolour = () => setTimeout(draw, 300); // after Streamlit has changed its own colours
  loaded.then(draw);
  missing.then((sentence) => window.Plotly || say(root, sentence));
  scheme.addEventListener("change", recolour);
  return () => scheme.removeEventListener("change", recolour);
}

// Figures out of view are drawn when they are scrolled into view: a slider changes all figures of a page.
const observer = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      target.inSight = isIntersecting;
      if (isIntersecting && waiting.has(target)) inTurn(target, waiting.get(target));
      if (isIntersecting) waiting.delete(target);
    }
  },
  { rootMargin: "150px" },
);

function whenVisible(root, draw) {
  if (root.inSight) return inTurn(root, draw);
  waiting.set(root, draw);
  observer.observe(root);
}

// One figure after the other, the topmost first, each painted before the next one starts, so that the first figure does
// not wait for all others.
const line = new Map(); // root element → how to draw it
let busy = false;

function inTurn(root, draw) {
  line.set(root, draw);
  if (busy) return;
  busy = true;
  queueMicrotask(drawNext); // after all figures of this update are in line
}

function drawNext() {
  const follows = (a, b) => a.compareDocumentPosition(b) & Node.DOCUMENT_POSITION_FOLLOWING;
  const [first] = [...line.keys()].sort((a, b) => (follows(a, b) ? -1 : 1));
  busy = first !== undefined;
  if (!busy) return;
  requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(drawNext))); // also if this one fails
  const draw = line.get(first);
  line.delete(first);
  if (first.isConnected) draw();
}

// The page's head loads plotly.js; it may still arrive after the warning.
const library = document.getElementById("plotly");
const LONG = 30_000; // milliseconds until a warning is shown
const loaded = new Promise((done) => (window.Plotly ? done() : library?.addEventListener("load", () => window.Plotly && done())));
const missing = new Promise((miss) => {
  const gone = () => miss(`No figure can be drawn: plotly.js did not arrive from ${library?.src ?? "this server"}. ` +
    "Reload the page, or check proxies between browser and server.");
  if (!library || library.failed) return gone();
  for (const event of ["load", "error"]) library.addEventListener(event, () => window.Plotly || gone());
  setTimeout(gone, LONG);
});

function say(root, sentence) {
  root.classList.add("missing");
  root.removeAttribute("role"); // text, not a figure
  root.textContent = sentence;
}

// One configuration for all updates: Plotly starts a figure anew, and forgets its zoom, where that is another object.
const config = {
  displaylogo: false, displayModeBar: "hover", showSendToCloud: false, plotlyServerURL: "", // no uploads
  modeBarButtonsToRemove: ["toImage", "select2d", "lasso2d", "autoScale2d", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d"],
  modeBarButtonsToAdd: [{ name: "Save figure", icon: icon("Save"), click: askHowToSave }],
};

// Lines that can be dragged. Other shapes lie below the data, where Plotly does not drag them.
let drawings = 0;
const draggable = { ...config, edits: { shapePosition: true } };

// After a drag: the position of the line that was moved, which then is vertical or horizontal from edge to edge again.
function moved(root, changes) {
  const { figure, lines, setTriggerValue } = shown.get(root);
  const [, index, of] = /^shapes\[(\d+)\]\.([xy])/.exec(Object.keys(changes)[0] ?? "") ?? [];
  if (index === undefined) return;
  const before = figure.layout.shapes[index];
  const along = before.x0 === before.x1 ? "x" : "y", stood = before[`${along}0`];
  const position = ["0", "1"].map((end) => changes[`shapes[${index}].${along}${end}`]).find((value) => (value ?? stood) !== stood);
  looks.delete(root);
  drawFigure(root, shown.get(root)); // back, until the answer
  if (position !== undefined && lines.includes(before.name)) setTriggerValue("moved", { name: before.name, position });
}

function drawFigure(root, { figure, lines }) {
  const Plotly = window.Plotly;
  const first = !root.classList.contains("js-plotly-plot");
  const { data, layout } = forWidth(root.offsetWidth, figure.data, themed(figure.layout, colours(root)));
  const look = JSON.stringify([data, layout]);
  if (looks.get(root) === look) return;
  looks.set(root, look);
  if (root.classList.contains("missing")) root.textContent = ""; // plotly.js arrived late
  root.classList.remove("missing");
  const now = { ...layout, editrevision: ++drawings }; // what was dragged is drawn where the answer has it
  Plotly.react(root, data, now, lines.length ? draggable : config).then(() => (root.dataset.drawn = "yes"));
  if (first) {
    let width = root.offsetWidth;
    new ResizeObserver(() => {
      const before = width;
      width = root.offsetWidth || width;
      if (width === before) return;
      Plotly.Plots.resize(root);
      if (Math.min(width, before) < NARROW) drawFigure(root, shown.get(root));
    }).observe(root);
    root.on("plotly_click", ({ points: [point] }) => {
      const { setTriggerValue, clickable } = shown.get(root);
      if (clickable) setTriggerValue("point", { x: point.x, y: point.y, customdata: plain(point.customdata) });
    });
    root.on("plotly_relayout", (changes) => moved(root, changes));
    root.on("plotly_selected", (box) => {
      if (box?.points.length) shown.get(root).setTriggerValue("brushed", box.points.map(({ customdata }) => customdata));
    });
  }
}

// On a phone: titles that fit, the whole legend, and no labels beside points, which hovering shows as well.
const NARROW = 480, AROUND = 70, ENTRY = 19; // pixels: of the page, of labels and margins, of a legend's row
function forWidth(width, data, layout) {
  if (width >= NARROW) return { data, layout };
  const beside = (trace) => Array.isArray(trace.textposition) && trace.mode?.includes("+text");
  const bare = data.map((trace) => (beside(trace) ? { ...trace, mode: trace.mode.replace("+text", "") } : trace));
  const names = data.filter(({ name, showlegend }) => layout.showlegend && name && showlegend !== false).map(({ name }) => name);
  const rows = names.length / (Math.max(0, ...names.map((name) => name.length)) > width / 25 ? 1 : 2);
  const legend = layout.legend?.orientation === "h" ? Math.max(0, ENTRY * (Math.ceil(rows) - 3)) : 0;
  const fit = fitted(layout, width - AROUND, layout.height - AROUND);
  return { data: bare, layout: { ...fit, height: layout.height + legend, legend: { ...layout.legend, maxheight: 0.9 } } };
}

const plain = (value) => (ArrayBuffer.isView(value) ? Array.from(value) : value ?? null);

// A mode bar icon with text.
function icon(word) {
  return { width: 34, height: 16, svg: `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 34 16">
    <text x="17" y="13" text-anchor="middle" font-size="13" font-weight="bold" font-family="sans-serif">${word}</text></svg>` };
}

// Colours and font of the page; a saved figure is light unless the page's colours are asked for.
const LIGHT = { ink: "#1b1f27", paper: "#ffffff", line: "#d5d8de", box: "#f3f5f8" };

function colours(root) {
  const style = getComputedStyle(root);
  const of = (name) => style.getPropertyValue(name).trim();
  return { ink: of("--st-text-color"), paper: of("--st-background-color"), line: of("--st-border-color"),
    box: of("--st-secondary-background-color"), family: of("--st-font") };
}

const isAxis = ([key]) => /^[xy]axis/.test(key);

function themed(layout, { ink, paper, line, box, family }) {
  // A zoom stays while the axis means the same (uirevision), whatever is drawn on it.
  const axis = (own) => ({ gridcolor: line, linecolor: line, tickcolor: line, zerolinecolor: line,
    uirevision: own.title?.text ?? "axis", ...own });
  const axes = Object.fromEntries(Object.entries(layout).filter(isAxis).map(([key, own]) => [key, axis(own)]));
  return {
    paper_bgcolor: paper, plot_bgcolor: paper, font: { color: ink, family, size: 12 },
    uirevision: "figure", modebar: { bgcolor: "transparent", color: ink, activecolor: ink },
    hoverlabel: { bgcolor: box, font: { color: ink }, bordercolor: line }, ...layout, ...axes,
    ...(layout.shapes && { shapes: structuredClone(layout.shapes) }), // Plotly moves dragged ones in place
  };
}
