// Draws the tiles, returns the number of a clicked tile, and shows exact values under the pointer.
const REST = [128, 128, 128]; // steps that are not sampled yet

export default function ({ data, parentElement, setTriggerValue }) {
  const grid = parentElement.querySelector(".gallery");
  const tip = parentElement.querySelector(".tip");
  grid.style.gridTemplateColumns = data.columns;
  grid.classList.toggle("clickable", data.clickable);
  while (grid.children.length > data.tiles.length) grid.lastChild.remove();
  while (grid.children.length < data.tiles.length) grid.append(emptyTile());

  const chosen = data.tiles.findIndex(({ number }) => number !== null && number === data.chosen);
  const stop = Math.max(0, chosen); // the tile that the Tab key reaches; arrow keys move on from it
  data.tiles.forEach((tile, k) => {
    const figure = grid.children[k];
    const [image, strip, caption] = figure.children;
    if (image.src !== tile.src) image.src = tile.src;
    image.alt = tile.hover;
    caption.textContent = tile.caption;
    figure.classList.toggle("chosen", tile.number !== null && tile.number === data.chosen);
    figure.dataset.number = tile.number ?? "";
    image.tabIndex = data.clickable && k === stop ? 0 : -1;
    image.role = data.clickable ? "button" : null;
    strip.style.display = tile.strip === null && !tile.place ? "none" : "block";
    strip.style.visibility = tile.strip === null ? "hidden" : "visible";
    if (tile.strip !== null) drawStrip(strip, tile.strip, data);

    const pick = () => data.clickable && tile.number !== null && setTriggerValue("picked", tile.number);
    figure.onclick = pick;
    figure.onmousedown = (event) => event.preventDefault(); // a click takes no focus: arrow keys stay the page's own
    figure.onkeydown = (event) => {
      if (data.clickable && (event.key === "Enter" || event.key === " ")) {
        event.preventDefault();
        pick();
      }
      move(event, grid, k);
    };
    figure.onmousemove = (event) => showTip(tip, event, describe(tile, strip, event, data));
    figure.onmouseleave = () => (tip.style.display = "none");
  });
  return () => (tip.style.display = "none");
}

// Focus the next tile in the direction of an arrow key.
function move(event, grid, k) {
  const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  const far = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
  const image = grid.children[k + far]?.querySelector("[tabindex]");
  if (!image || event.target.role !== "button") return;
  event.preventDefault();
  event.stopPropagation(); // of the page's own arrow keys
  event.target.tabIndex = -1;
  image.tabIndex = 0;
  image.focus();
}

function emptyTile() {
  const figure = document.createElement("figure");
  for (const name of ["img", "canvas", "figcaption"]) figure.append(document.createElement(name));
  return figure;
}

// One pixel per step; the style sheet stretches it.
function drawStrip(canvas, layers, { timesteps, colors }) {
  canvas.width = Math.max(timesteps.length, layers.length, 1);
  canvas.height = 1;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, 1);
  for (let s = 0; s < canvas.width; s++) {
    pixels.data.set([...(s < layers.length ? colors[layers[s]] : REST), 255], 4 * s);
  }
  context.putImageData(pixels, 0, 0);
}

function describe(tile, strip, event, { timesteps }) {
  if (tile.strip === null || event.target !== strip) return tile.hover;
  const { left, width } = strip.getBoundingClientRect();
  const step = Math.min(strip.width - 1, Math.floor(((event.clientX - left) / width) * strip.width));
  const layer = step < tile.strip.length ? `exit layer ${tile.strip[step]}` : "not sampled yet";
  return `t = ${timesteps[step]} (step ${step}): ${layer}`;
}

function showTip(tip, event, text) {
  tip.textContent = text;
  tip.style.display = "block";
  const right = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
  tip.style.left = `${right}px`;
  tip.style.top = `${event.clientY + 16}px`;
}
