// Pairs of images under one divider: its left shows one of a pair, its right the other; F changes their sides.
const STEP = 1; // percent per arrow key
const states = new WeakMap(); // element → place of the divider in percent, and whether the sides are changed

export default function ({ data, parentElement }) {
  const [grid, flip, range, left, right, caption] = [".pairs", "button", "input", ".left", ".right", ".at"].map((name) =>
    parentElement.querySelector(name),
  );
  if (!states.has(grid)) states.set(grid, { place: 50, flipped: false });
  const state = states.get(grid);
  grid.style.gridTemplateColumns = data.columns;
  grid.classList.toggle("single", data.pairs.length === 1);
  while (grid.children.length > data.pairs.length) grid.lastChild.remove();
  while (grid.children.length < data.pairs.length) grid.append(emptyPair());
  range.step = STEP;

  const draw = () => {
    const [near, far] = state.flipped ? [1, 0] : [0, 1];
    const frames = data.sides.map(({ timesteps }) => frameAt(timesteps, time.t));
    left.textContent = `${"AB"[near]}: ${data.sides[near].title}`;
    right.textContent = `${"AB"[far]}: ${data.sides[far].title}`;
    range.value = state.place;
    range.setAttribute("aria-valuetext", `${state.place} % ${left.textContent}, the rest ${right.textContent}`);
    flip.setAttribute("aria-pressed", state.flipped);
    caption.textContent = [near, far].map((side) => data.sides[side].captions[frames[side]]).join("  |  ");
    caption.style.display = data.sides[0].timesteps.length > 1 ? "block" : "none";
    data.pairs.forEach(({ sources, label }, k) => {
      const [stack, name] = grid.children[k].children, [under, over, line] = stack.children;
      for (const [image, side] of [[under, far], [over, near]]) {
        const source = sources[side][frames[side]];
        image.style.visibility = source ? "visible" : "hidden";
        if (source && image.src !== source) image.src = source;
        image.alt = `${label} ${"AB"[side]}: ${data.sides[side].title}`.trim();
      }
      over.style.clipPath = `inset(0 ${100 - state.place}% 0 0)`;
      line.style.left = `${state.place}%`;
      name.textContent = label;
      stack.onpointerdown = (event) => {
        stack.setPointerCapture(event.pointerId);
        drag(stack, event);
      };
      stack.onpointermove = (event) => stack.hasPointerCapture(event.pointerId) && drag(stack, event);
    });
  };
  const drag = (stack, event) => {
    const box = stack.getBoundingClientRect();
    state.place = Math.round(Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width)));
    draw();
  };
  const change = () => {
    state.flipped = !state.flipped;
    draw();
  };
  const key = (event) => {
    const typing = event.composedPath()[0].closest?.("input:not([type=range]), textarea, select, [contenteditable=true]");
    if (event.key.toLowerCase() === "f" && !event.ctrlKey && !event.metaKey && !event.altKey && !typing) change();
  };
  flip.onclick = change;
  range.oninput = () => {
    state.place = Number(range.value);
    draw();
  };
  document.addEventListener("keydown", key);
  const leave = join(grid, draw);
  return () => {
    document.removeEventListener("keydown", key);
    leave();
  };
}

function emptyPair() {
  const figure = document.createElement("figure"), stack = document.createElement("div");
  stack.className = "stack";
  for (const name of ["img", "img", "i"]) stack.append(document.createElement(name));
  for (const image of stack.querySelectorAll("img")) image.draggable = false;
  figure.append(stack, document.createElement("figcaption"));
  return figure;
}
