// Films side by side, at the time of the page.
export default function ({ data, parentElement }) {
  const reels = parentElement.querySelector(".reels");
  while (reels.children.length > data.reels.length) reels.lastChild.remove();
  while (reels.children.length < data.reels.length) reels.append(emptyReel());
  data.reels.forEach(({ title }, k) => {
    reels.children[k].children[0].textContent = reels.children[k].children[0].title = title;
  });
  return join(reels, (t) => {
    data.reels.forEach(({ sources, captions, title, timesteps }, k) => {
      const frame = frameAt(timesteps, t), [, image, caption] = reels.children[k].children;
      image.style.visibility = sources[frame] ? "visible" : "hidden";
      if (sources[frame]) image.src = sources[frame];
      image.alt = `${title}, t = ${timesteps[frame]}`;
      caption.textContent = captions[frame];
    });
  });
}

function emptyReel() {
  const figure = document.createElement("figure");
  for (const name of ["strong", "img", "figcaption"]) figure.append(document.createElement(name));
  return figure;
}
