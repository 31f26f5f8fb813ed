// Writes an SVG picture, as Plotly draws it, as a PDF page: paths, images, and text in an embedded font. It is loaded
// when a figure is saved as PDF.
import { POINTS, hex, written } from "./file.js";
import { number, numbers, outline } from "./path.js";

export { loadFont } from "./font.js";

const SLICES = 128; // of a gradient
const UNDRAWN = new Set(["defs", "clipPath", "style", "title", "desc", "metadata"]);

export async function toPdf(source, font, title) {
  const place = document.createElement("div");
  place.style.cssText = "position: fixed; left: -99999px; top: 0"; // laid out, not seen
  place.innerHTML = source;
  document.body.append(place);
  try {
    const svg = place.querySelector("svg"), page = new Picture(svg, font);
    for (const image of svg.querySelectorAll("image")) await page.load(image);
    page.draw(svg, 1);
    const size = [svg.width.baseVal.value, svg.height.baseVal.value].map((side) => side * POINTS);
    return await written(page, font, size, title);
  } finally {
    place.remove();
  }
}

// What `url(#…)` names within the picture.
function named(element, url) {
  const [, id] = /url\(["']?[^#]*#([^"')]+)/.exec(url ?? "") ?? [];
  return id ? element.ownerSVGElement.querySelector(`[id="${id}"]`) : null;
}

// The operators of the page, and the fonts, images and opacities that they name.
class Picture {
  constructor(svg, font) {
    this.font = font;
    this.home = svg.getScreenCTM().inverse();
    this.lines = [];
    this.images = new Map(); // element → pixels
    this.alphas = new Map(); // operands → name
    this.used = new Map(); // glyph → character
  }

  async load(image) {
    const href = image.getAttribute("href") ?? image.getAttribute("xlink:href");
    const bitmap = await createImageBitmap(await (await fetch(href)).blob());
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
    context.drawImage(bitmap, 0, 0);
    this.images.set(image, context.getImageData(0, 0, bitmap.width, bitmap.height));
  }

  draw(element, outer) {
    const style = getComputedStyle(element);
    if (UNDRAWN.has(element.tagName) || style.display === "none") return;
    const opacity = outer * Number(style.opacity), clip = this.clip(element);
    if (clip) this.lines.push("q", ...clip);
    if (element.tagName === "g" || element.tagName === "svg") [...element.children].forEach((e) => this.draw(e, opacity));
    else if (style.visibility !== "hidden" && opacity > 0) {
      const kind = { text: "text", image: "image" }[element.tagName] ?? "shape";
      this.lines.push("q", this.matrix(element));
      this[kind](element, style, opacity);
      this.lines.push("Q");
    }
    if (clip) this.lines.push("Q");
  }

  // From the element's coordinates to those of the page before its flip, set by `cm`.
  matrix(element, inner) {
    const own = this.home.multiply(element.getScreenCTM());
    const m = inner ? own.multiply(inner) : own;
    return `${numbers(m.a, m.b, m.c, m.d, m.e, m.f)} cm`;
  }

  clip(element) {
    const path = named(element, element.getAttribute("clip-path"));
    if (!path) return null;
    const set = this.home.multiply(element.getScreenCTM()), back = set.inverse();
    const cm = (m) => `${numbers(m.a, m.b, m.c, m.d, m.e, m.f)} cm`;
    return [cm(set), [...path.children].map(outline).join("\n"), "W n", cm(back)];
  }

  colour(value, operator) {
    const parts = /^rgba?\(([^)]+)\)/.exec(value)?.[1].split(/[\s,/]+/).map(Number);
    if (!parts || parts[3] === 0) return null; // none, or a gradient
    this.lines.push(`${numbers(...parts.slice(0, 3).map((part) => part / 255))} ${operator}`);
    return parts[3] ?? 1;
  }

  alpha(fill, stroke) {
    if (fill === 1 && stroke === 1) return;
    const operands = `/ca ${number(fill)} /CA ${number(stroke)}`;
    if (!this.alphas.has(operands)) this.alphas.set(operands, `G${this.alphas.size}`);
    this.lines.push(`/${this.alphas.get(operands)} gs`);
  }

  shape(element, style, opacity) {
    const path = outline(element), gradient = named(element, style.fill);
    if (gradient) return this.shade(element, gradient, opacity);
    const fill = element.tagName === "line" ? null : this.colour(style.fill, "rg"), width = parseFloat(style.strokeWidth);
    const stroke = width > 0 ? this.colour(style.stroke, "RG") : null;
    if (!path || (fill === null && stroke === null)) return;
    this.alpha((fill ?? 1) * style.fillOpacity * opacity, (stroke ?? 1) * style.strokeOpacity * opacity);
    if (stroke !== null) {
      const dashes = style.strokeDasharray === "none" ? [] : style.strokeDasharray.split(/[\s,]+/).map(parseFloat);
      const cap = ["butt", "round", "square"].indexOf(style.strokeLinecap);
      const join = ["miter", "round", "bevel"].indexOf(style.strokeLinejoin);
      this.lines.push(`${number(width)} w ${Math.max(0, cap)} J ${Math.max(0, join)} j [${numbers(...dashes)}] 0 d`);
    }
    const even = style.fillRule === "evenodd" ? "*" : "";
    this.lines.push(path, stroke === null ? `f${even}` : fill === null ? "S" : `B${even}`);
  }

  // A rectangle with a vertical gradient, as of a colour bar: each slice also covers those above it, without gaps.
  shade(element, gradient, opacity) {
    const [x, y, width, height] = ["x", "y", "width", "height"].map((name) => element[name].baseVal.value);
    const stops = [...gradient.children].map((stop) => [stop.offset.baseVal, getComputedStyle(stop).stopColor]);
    const upward = gradient.y1.baseVal.value > gradient.y2.baseVal.value;
    this.alpha(opacity, 1);
    for (let k = 0; k < SLICES; k++) {
      const at = (k + 0.5) / SLICES, next = stops.findIndex(([offset]) => offset >= at), rest = height * (1 - k / SLICES);
      const [[from, a], [to, b]] = [stops[Math.max(0, next - 1)], stops.at(next)];
      const share = to > from ? (at - from) / (to - from) : 1, [one, other] = [a, b].map((c) => c.match(/[\d.]+/g).map(Number));
      this.lines.push(`${numbers(...[0, 1, 2].map((i) => (one[i] + share * (other[i] - one[i])) / 255))} rg`);
      this.lines.push(`${numbers(x, upward ? y : y + height - rest, width, rest)} re f`);
    }
  }

  image(element, style, opacity) {
    const [x, y, w, h] = ["x", "y", "width", "height"].map((name) => element[name].baseVal.value);
    const { width, height } = this.images.get(element);
    const none = element.getAttribute("preserveAspectRatio") === "none", fit = Math.min(w / width, h / height);
    const [wide, high] = none ? [w, h] : [width * fit, height * fit];
    this.alpha(opacity, 1);
    const name = `I${[...this.images.keys()].indexOf(element)}`;
    this.lines.push(`${numbers(wide, 0, 0, -high, x + (w - wide) / 2, y + (h + high) / 2)} cm /${name} Do`);
  }

  // Each part of a text, such as a line or an index, where the browser has it.
  text(element, _, opacity) {
    const nodes = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
    for (let start = 0; nodes.nextNode(); start += nodes.currentNode.data.length) {
      const content = nodes.currentNode.data, style = getComputedStyle(nodes.currentNode.parentElement);
      if (!content.trim() || start >= element.getNumberOfChars()) continue;
      const { x, y } = element.getStartPositionOfChar(start), size = parseFloat(style.fontSize);
      const alpha = this.colour(style.fill, "rg");
      if (alpha === null) continue;
      this.alpha(alpha * style.fillOpacity * opacity, 1);
      const bold = Number(style.fontWeight) >= 600; // the font has one weight: its outline is drawn, too
      if (bold) this.colour(style.fill, "RG");
      this.lines.push(`BT /F ${number(size)} Tf ${bold ? `2 Tr ${number(size / 28)} w` : "0 Tr"}`);
      this.lines.push(`1 0 0 -1 ${numbers(x, y)} Tm <${[...content].map((c) => this.glyph(c)).join("")}> Tj ET`);
    }
  }

  glyph(character) {
    const { glyphs } = this.font, found = glyphs.get(character.codePointAt(0)) ?? glyphs.get("?".codePointAt(0));
    this.used.set(found, character);
    return hex(found);
  }
}
