// A plan as a timeline from noise (left) to image (right): a handle per step, dragged along t; below it a ladder of what
// the step may do, clicked. Every change returns the whole plan as text.
const SVG = "http://www.w3.org/2000/svg";
const RIGHT = 18, TOP = 46, ROW = 19, BOTTOM = 40;

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".timeline");
  const marks = data.marks.map((mark) => ({ ...mark }));
  const rows = data.rows.length;
  const height = TOP + rows * ROW + BOTTOM;
  let width = root.clientWidth || 800;
  let left = labelSpace(root, data.rows, width);

  const xOf = (t) => left + (1 - t / data.last) * (width - left - RIGHT);
  const tOf = (x) => Math.round((1 - (x - left) / (width - left - RIGHT)) * data.last);
  const yOf = (row) => TOP + (rows - 1 - row + 0.5) * ROW; // the first row at the bottom
  const send = () => setTriggerValue("steps", marks.map((m) => m.t + data.rows[m.row].text).join(","));

  function between(k, t) {
    const above = k > 0 ? marks[k - 1].t - 1 : data.last;
    const below = k + 1 < marks.length ? marks[k + 1].t + 1 : 0;
    return Math.min(above, Math.max(below, t));
  }

  function remove(k) {
    if (marks.length < 2) return;
    marks.splice(k, 1);
    draw();
    send();
  }

  function insert(t) {
    const k = marks.findIndex((m) => m.t <= t);
    if (k >= 0 && marks[k].t === t) return;
    const place = k < 0 ? marks.length : k;
    marks.splice(place, 0, { t, row: marks[Math.max(0, place - 1)].row });
    draw();
    send();
  }

  function draw() {
    const focused = root.querySelector(".handle:focus")?.dataset.k;
    root.replaceChildren();
    const svg = add(root, "svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group" });
    svg.setAttribute("aria-label", `plan of ${marks.length} steps`);
    const band = add(svg, "rect", { x: left, y: 0, width: width - left - RIGHT, height: TOP - 6, class: "band" });
    add(band, "title").textContent = "Click to add a step here";
    band.onclick = (event) => insert(tOf(event.clientX - svg.getBoundingClientRect().left));
    data.rows.forEach((row, r) => {
      add(svg, "line", { x1: left, x2: width - RIGHT, y1: yOf(r), y2: yOf(r), class: "row" });
      const label = add(svg, "text", { x: left - 12, y: yOf(r) + 4, "text-anchor": "end", class: "label" });
      label.textContent = row.label;
      for (let k = row.label.length; k > 1 && label.getComputedTextLength() > left - 14; k--) {
        label.textContent = `${row.label.slice(0, k - 1)}…`; // on a phone
      }
      add(label, "title").textContent = row.title;
    });
    const bottom = TOP + rows * ROW + 4;
    for (let k = 0; k <= 5; k++) {
      const t = Math.round((data.last * (5 - k)) / 5);
      add(svg, "text", { x: xOf(t), y: bottom + 14, "text-anchor": "middle", class: "tick" }).textContent = t;
    }
    add(svg, "text", { x: left, y: bottom + 30, class: "tick" }).textContent = "noise";
    const end = add(svg, "text", { x: width - RIGHT, y: bottom + 30, "text-anchor": "end", class: "tick" });
    end.textContent = "image";
    const middle = add(svg, "text", { x: (left + width - RIGHT) / 2, y: bottom + 30, "text-anchor": "middle", class: "tick" });
    middle.textContent = "timestep t";
    marks.forEach((mark, k) => drawMark(svg, mark, k));
    if (focused !== undefined) root.querySelector(`.handle[data-k="${focused}"]`)?.focus();
  }

  function drawMark(svg, mark, k) {
    const x = xOf(mark.t);
    add(svg, "line", { x1: x, x2: x, y1: TOP - 8, y2: TOP + rows * ROW, class: "rail" });
    data.rows.forEach((row, r) => {
      const chosen = r === mark.row;
      const dot = add(svg, "circle", { cx: x, cy: yOf(r), r: chosen ? 7 : 3.5, class: chosen ? "dot chosen" : "dot" });
      if (chosen) dot.style.fill = row.color;
      const hit = add(svg, "rect", { x: x - 8, y: yOf(r) - ROW / 2, width: 16, height: ROW, class: "hit" });
      hit.dataset.cell = `${k}-${r}`;
      add(hit, "title").textContent = `t = ${mark.t}: ${row.title}`;
      hit.onclick = () => {
        if (marks[k].row === r) return;
        marks[k].row = r;
        draw();
        send();
      };
    });
    const handle = add(svg, "g", { class: "handle", tabindex: 0, role: "slider" });
    handle.dataset.k = k;
    const said = { valuemin: 0, valuemax: data.last, valuenow: mark.t, label: `step ${k}: ${data.rows[mark.row].title}` };
    for (const [name, value] of Object.entries(said)) handle.setAttribute(`aria-${name}`, value);
    const up = k % 2 ? 0 : 16; // neighbouring labels at two heights
    add(handle, "rect", { x: x - 15, y: 2 + up, width: 30, height: 15, rx: 4 });
    add(handle, "text", { x, y: 13.5 + up, "text-anchor": "middle" }).textContent = mark.t;
    add(handle, "title").textContent = "Drag, or use ← and → (Shift: by 10), ↑ and ↓; Delete removes the step";
    handle.onkeydown = (event) => pressed(event, k);
    handle.onpointerdown = (event) => drag(event, svg, k);
  }

  function pressed(event, k) {
    const far = event.shiftKey ? 10 : 1;
    const moves = { ArrowLeft: [far, 0], ArrowRight: [-far, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (event.key === "Delete" || event.key === "Backspace") return remove(k);
    if (!(event.key in moves)) return;
    event.preventDefault();
    const [time, row] = moves[event.key];
    marks[k].t = between(k, marks[k].t + time);
    marks[k].row = Math.min(rows - 1, Math.max(0, marks[k].row + row));
    draw();
    send();
  }

  function drag(event, svg, k) {
    event.preventDefault();
    root.querySelector(`.handle[data-k="${k}"]`)?.focus();
    const before = marks[k].t;
    const edge = svg.getBoundingClientRect().left;
    const move = (e) => {
      marks[k].t = between(k, tOf(e.clientX - edge));
      draw();
    };
    const up = () => {
      window.removeEventListener("pointermove", move);
      window.removeEventListener("pointerup", up);
      if (marks[k].t !== before) send();
    };
    window.addEventListener("pointermove", move);
    window.addEventListener("pointerup", up);
  }

  const observer = new ResizeObserver(() => {
    if (!root.clientWidth || root.clientWidth === width) return;
    width = root.clientWidth;
    left = labelSpace(root, data.rows, width);
    draw();
  });
  observer.observe(root);
  draw();
  return () => observer.disconnect();
}

// Pixels for the longest label and its distance from the ladder: at most two fifths of the width.
function labelSpace(root, rows, width) {
  const svg = add(root, "svg"), text = add(svg, "text", { class: "label" });
  const lengths = rows.map((row) => {
    text.textContent = row.label;
    return text.getComputedTextLength();
  });
  svg.remove();
  return Math.ceil(Math.min(0.4 * width, Math.max(96, ...lengths) + 22));
}

function add(parent, name, attributes = {}) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent.append(element);
  return element;
}
