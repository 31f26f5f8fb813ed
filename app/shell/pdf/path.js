// Shapes of an SVG picture as operators of a PDF page (section 8.5 of ISO 32000-1).
export const number = (value) => String(Number(value.toFixed(3)));
export const numbers = (...values) => values.map(number).join(" ");

// The path of a shape, by the operators of section 8.5.2.
export function outline(element) {
  const of = (name) => element[name]?.baseVal.value ?? 0;
  if (element.tagName === "rect") return `${numbers(of("x"), of("y"), of("width"), of("height"))} re`;
  if (element.tagName === "line") return curves(`M${of("x1")},${of("y1")}L${of("x2")},${of("y2")}`);
  if (element.tagName === "circle") {
    const [x, y, r] = [of("cx"), of("cy"), of("r")];
    return curves(`M${x + r},${y}A${r},${r} 0 1,1 ${x - r},${y}A${r},${r} 0 1,1 ${x + r},${y}Z`);
  }
  return curves(element.getAttribute("d") ?? "");
}

const SIZES = { M: 2, L: 2, H: 1, V: 1, C: 6, S: 4, Q: 4, T: 2, A: 7, Z: 0 };

// The data of an SVG path (SVG 1.1, section 8.3) as operators.
function curves(data) {
  const tokens = data.match(/[a-z]|[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?/gi) ?? [];
  const found = [];
  let x = 0, y = 0, left = 0, top = 0, control = null, command = "M", k = 0;
  const cubic = (...points) => found.push(`${numbers(...points)} c`);
  while (k < tokens.length) {
    if (/[a-z]/i.test(tokens[k])) command = tokens[k++];
    const kind = command.toUpperCase(), v = tokens.slice(k, k + SIZES[kind]).map(Number);
    k += SIZES[kind];
    if (command !== kind) v.forEach((_, i) => (v[i] += relative(kind, i) === "x" ? x : relative(kind, i) === "y" ? y : 0));
    const from = [x, y], before = control;
    control = null;
    if (kind === "Z") [x, y] = [left, top];
    else if (kind === "H") x = v[0];
    else if (kind === "V") y = v[0];
    else [x, y] = v.slice(-2);
    if (kind === "Z") found.push("h");
    else if (kind === "M") {
      found.push(`${numbers(x, y)} m`);
      [left, top, command] = [x, y, command === "m" ? "l" : "L"];
    } else if (["L", "H", "V"].includes(kind)) found.push(`${numbers(x, y)} l`);
    else if (kind === "A") arc(from, v).forEach((part) => cubic(...part));
    else {
      const square = kind === "Q" || kind === "T"; // a quadratic curve
      const mirrored = [2 * from[0] - (before?.[0] ?? from[0]), 2 * from[1] - (before?.[1] ?? from[1])];
      const all = kind === "S" || kind === "T" ? [...mirrored, ...v] : v;
      control = all.slice(-4, -2);
      const third = (end, c) => end + (2 / 3) * (c - end);
      if (!square) cubic(...all);
      else cubic(third(from[0], all[0]), third(from[1], all[1]), third(x, all[0]), third(y, all[1]), x, y);
    }
  }
  return found.join("\n");
}

// Which coordinate an operand of a relative command is added to.
function relative(kind, i) {
  if (kind === "A") return { 5: "x", 6: "y" }[i];
  return kind === "V" ? "y" : kind === "H" ? "x" : "xy"[i % 2];
}

// An elliptical arc as cubic curves of at most a quarter (SVG 1.1, appendix F.6.5).
function arc([x0, y0], [rx, ry, degrees, large, sweep, x1, y1]) {
  if (!rx || !ry || (x0 === x1 && y0 === y1)) return [[x0, y0, x1, y1, x1, y1]];
  const turn = (degrees * Math.PI) / 180, cos = Math.cos(turn), sin = Math.sin(turn);
  const dx = (x0 - x1) / 2, dy = (y0 - y1) / 2, px = cos * dx + sin * dy, py = cos * dy - sin * dx;
  const grow = Math.sqrt(Math.max(1, (px / rx) ** 2 + (py / ry) ** 2)), a = grow * Math.abs(rx), b = grow * Math.abs(ry);
  const rest = Math.max(0, (a * b) ** 2 / ((a * py) ** 2 + (b * px) ** 2) - 1);
  const factor = (large === sweep ? -1 : 1) * Math.sqrt(rest), qx = (factor * a * py) / b, qy = (-factor * b * px) / a;
  const first = Math.atan2((py - qy) / b, (px - qx) / a);
  let span = Math.atan2((-py - qy) / b, (-px - qx) / a) - first;
  if (sweep && span < 0) span += 2 * Math.PI;
  if (!sweep && span > 0) span -= 2 * Math.PI;
  const pieces = Math.ceil(Math.abs(span) / (Math.PI / 2) - 1e-9), step = span / pieces, reach = (4 / 3) * Math.tan(step / 4);
  const at = (u, v) => [cos * a * u - sin * b * v + cos * qx - sin * qy + (x0 + x1) / 2,
    sin * a * u + cos * b * v + sin * qx + cos * qy + (y0 + y1) / 2];
  return Array.from({ length: pieces }, (_, k) => {
    const [s, e] = [first + k * step, first + (k + 1) * step];
    return [...at(Math.cos(s) - reach * Math.sin(s), Math.sin(s) + reach * Math.cos(s)),
      ...at(Math.cos(e) + reach * Math.sin(e), Math.sin(e) - reach * Math.cos(e)), ...at(Math.cos(e), Math.sin(e))];
  });
}
