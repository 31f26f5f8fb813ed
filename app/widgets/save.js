// Saves a figure for a paper, as SVG, PNG or PDF: the end of plot.js.
const INCH = 96; // CSS pixels
const WIDTHS = { one: ["One column, 3.25 in", 3.25], two: ["Two columns, 6.75 in", 6.75], screen: ["As on screen", null] };
const FORMATS = ["SVG", "PNG", "PDF"];
const SHAPE = 0.75, LEAST_SHAPE = 0.5; // height of a figure and least height of its plot, by the column's width
const ROW = 13, LETTER = 6.5; // pixels that a tick and a letter need
const LEAST = 11; // pixels of the smallest text: 8.25 points
const LINE = 15; // pixels of a line of the caption
const AMPLE = 2000; // pixels: a height at which no legend is cut off
const FONT = "figure"; // of PDFs, which embed it
const chosen = { width: "two", colours: false }; // kept from figure to figure

// A dialog beside the figure, and the file when one of its buttons is pressed.
function askHowToSave(root) {
  const dialog = document.createElement("dialog");
  dialog.className = "save";
  dialog.setAttribute("aria-label", "Save figure");
  const radio = ([key, [label]]) => `<label><input type="radio" name="width" value="${key}"> ${label}</label>`;
  dialog.innerHTML = `<form method="dialog"><fieldset><legend>Width of the figure</legend>
    ${Object.entries(WIDTHS).map(radio).join("")}</fieldset>
    <label class="colours"><input type="checkbox" name="colours"> Dark, as on screen</label>
    <p>${FORMATS.map((name) => `<button type="button" value="${name.toLowerCase()}">${name}</button>`).join("")}
    <button>Cancel</button></p></form>`;
  const [form] = dialog.children, { width, colours: asShown } = form.elements;
  width.value = chosen.width;
  asShown.checked = chosen.colours;
  const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
  dialog.querySelector(".colours").hidden = !dark;
  form.onclick = async ({ target: { value, type } }) => {
    if (type !== "button") return;
    Object.assign(chosen, { width: width.value, colours: asShown.checked });
    dialog.close();
    await save(root, value, WIDTHS[chosen.width][1], dark && chosen.colours);
  };
  dialog.onclose = () => dialog.remove();
  root.parentElement.append(dialog);
  dialog.showModal();
}

async function save(root, format, inches, asShown) {
  const { name, caption, alt } = shown.get(root);
  const files = format === "pdf" ? await import(new URL("pdf/picture.js", library.src)) : null;
  const font = files && (await (fonts ??= files.loadFont(FONT)));
  const family = files ? FONT : "Arial, sans-serif"; // the page's own font is not in the file
  const [figure, width, height] = await laidOut(root, inches, { ...colours(root), ...(asShown ? {} : LIGHT), family });
  if (!files) {
    const scale = format === "png" ? (inches ? 300 / INCH : 2) : 1; // 300 dots per inch
    return window.Plotly.downloadImage(figure, { format, filename: name, width, height, scale });
  }
  const svg = await window.Plotly.toImage(figure, { format: "svg", width, height, imageDataOnly: true });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await files.toPdf(svg, font, `${alt} (${caption})`));
  link.download = `${name}.pdf`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

let fonts; // a promise, once a PDF was asked for

// The figure as it is zoomed, without marks of the selection, with its caption below; its width and height.
async function laidOut(root, inches, look) {
  const { figure, caption, lines: dragged } = shown.get(root);
  const width = inches ? Math.round(inches * INCH) : root.offsetWidth;
  const zoomed = Object.entries(root._fullLayout).filter(isAxis).map(([key, { range }]) =>
    [key, { ...figure.layout[key], autorange: false, range: [...range] }]);
  let layout = legible(themed({ ...figure.layout, ...Object.fromEntries(zoomed) }, look));
  layout.shapes = (layout.shapes ?? []).filter(({ name }) => name !== "selected" && !dragged.includes(name));
  let high = inches ? Math.min(root.offsetHeight, Math.round(SHAPE * width)) : root.offsetHeight;
  const data = root.data, measure = (height) => measured({ data, layout: { ...layout, width, height } });
  if (inches) {
    layout.legend = { ...layout.legend, maxheight: 0.9 }; // by default, higher ones are cut off
    const rows = Object.entries(layout).filter(isAxis).map(([, { tickvals }]) => tickvals?.length ?? 0);
    const { w, h } = await measure(AMPLE), around = AMPLE - h;
    const wanted = Math.min(root._fullLayout._size.h, Math.max(LEAST_SHAPE * width, ROW * Math.max(...rows)));
    high = Math.max(high, Math.round(wanted + around));
    layout = fitted(layout, w, high - around);
  }
  const lines = wrapped(caption, width / 6), text = LINE * lines.length + 4, below = text + 1.6 * LINE;
  const height = Math.round(high + below), margin = { ...layout.margin, b: (await measure(high)).b + below };
  const title = { text: lines.join("<br>"), font: { size: LEAST }, pad: { l: 8 }, x: 0, xref: "container", xanchor: "left",
    y: text / height, yref: "container", yanchor: "top" };
  return [{ data, layout: { ...layout, width, height, margin, title } }, width, height];
}

// What labels and legend leave of a figure at this size (w, h), and the margin below it (b).
async function measured({ data, layout }) {
  const place = document.createElement("div");
  place.style.cssText = "position: fixed; left: -99999px; top: 0";
  document.body.append(place);
  await window.Plotly.newPlot(place, data, structuredClone(layout), { staticPlot: true });
  const { w, h, b } = place._fullLayout._size;
  window.Plotly.purge(place);
  place.remove();
  return { w, h, b };
}

// Axes for a plot of this size: titles without their remark in parentheses, or on several lines, and ticks apart.
function fitted(layout, wide, high) {
  const fit = ([key, axis]) => {
    const along = key[0] === "x" ? wide : high, [from, to] = axis.domain ?? [0, 1], room = along * (to - from);
    const said = axis.title?.text ?? "", most = room / LETTER;
    const text = said.length > most ? wrapped(said.replace(/\s+\(.*\)$/, ""), most).join("<br>") : said;
    let { dtick } = axis;
    while (dtick > 0 && axis.range && (room * dtick) / Math.abs(axis.range[1] - axis.range[0]) < ROW) dtick *= 2;
    return [key, { ...axis, ...(dtick && { dtick }), ...(text && { title: { ...axis.title, text } }) }];
  };
  return { ...layout, ...Object.fromEntries(Object.entries(layout).filter(isAxis).map(fit)) };
}

// No text below the least size.
function legible(value) {
  if (Array.isArray(value)) return value.map(legible);
  if (value === null || typeof value !== "object" || ArrayBuffer.isView(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, part]) =>
    [key, /font$/.test(key) && part?.size < LEAST ? { ...part, size: LEAST } : legible(part)]));
}

function wrapped(text, most) {
  const lines = [""];
  for (const word of text.split(" ")) {
    if (lines.at(-1).length + word.length > most) lines.push("");
    lines.push(`${lines.pop()} ${word}`.trim());
  }
  return lines;
}
