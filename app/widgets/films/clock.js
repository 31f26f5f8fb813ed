// Plays every film of the page. The slider's position is reported when it is released, or when playing is stopped.
const PERIOD = 450; // milliseconds per frame
const timers = new WeakMap(); // element → its timer, while it plays

export default function ({ data, parentElement, setTriggerValue }) {
  const [button, range, label] = ["button", "input", "output"].map((name) => parentElement.querySelector(name));
  const last = data.timesteps.length - 1;
  range.max = last;

  const show = (frame) => {
    range.value = frame;
    label.textContent = `t = ${data.timesteps[frame]}`;
    range.setAttribute("aria-valuetext", label.textContent);
    setTime(data.timesteps[frame]);
  };
  const stop = () => {
    clearInterval(timers.get(range));
    timers.delete(range);
    button.textContent = "▶ Play";
    mark(data.follows, null);
  };
  const play = () => {
    button.textContent = "❚❚ Stop";
    if (Number(range.value) === last) show(0);
    const next = () => {
      if (Number(range.value) === last) return stop();
      show(Number(range.value) + 1);
      mark(data.follows, Number(range.value));
    };
    mark(data.follows, Number(range.value));
    timers.set(range, setInterval(next, PERIOD));
  };
  const report = () => setTriggerValue("stopped", data.timesteps[Number(range.value)]);

  stop();
  show(data.start);
  button.onclick = () => {
    if (!timers.has(range)) return play();
    stop();
    report();
  };
  range.oninput = () => {
    stop();
    show(Number(range.value));
    mark(data.follows, Number(range.value));
  };
  range.onchange = () => {
    mark(data.follows, null);
    report();
  };
  return stop;
}

// A bar over one column of a figure; null removes it.
function mark(key, column) {
  const plot = key && document.querySelector(`.st-key-${key} .js-plotly-plot`);
  if (!plot) return;
  plot.querySelector(".playing")?.remove();
  const { xaxis, yaxis } = plot._fullLayout;
  if (column === null) return;
  const bar = document.createElement("div");
  bar.className = "playing";
  const left = xaxis._offset + xaxis.d2p(column - 0.5), width = xaxis.d2p(column + 0.5) - xaxis.d2p(column - 0.5);
  bar.style.cssText = `position:absolute;pointer-events:none;box-sizing:border-box;left:${left}px;width:${width}px;` +
    `top:${yaxis._offset}px;height:${yaxis._length}px;outline:2px solid currentColor;outline-offset:1px`;
  plot.append(bar);
}
