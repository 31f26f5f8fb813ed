// A PDF file of one page. References are to the sections of ISO 32000-1 (PDF 1.7).
import { numbers } from "./path.js";

export const POINTS = 0.75; // per CSS pixel
export const hex = (value) => value.toString(16).padStart(4, "0");

// The file: objects, their places, and the trailer (section 7.5).
export async function written(page, font, [width, height], title) {
  const encoder = new TextEncoder(), objects = [];
  const add = (body) => objects.push([encoder.encode(body)]); // its number: one more than its place
  const stream = async (entries, content) => {
    const bytes = typeof content === "string" ? encoder.encode(content) : content;
    const packed = new Response(new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate")));
    const body = new Uint8Array(await packed.arrayBuffer());
    const start = `<< ${entries} /Filter /FlateDecode /Length ${body.length} >>\nstream\n`;
    return objects.push([encoder.encode(start), body, encoder.encode("\nendstream")]);
  };
  const flip = `${numbers(POINTS, 0, 0, -POINTS, 0, height)} cm`;
  const content = await stream("", [flip, ...page.lines].join("\n"));
  const images = [];
  for (const pixels of page.images.values()) images.push(await imageObject(stream, pixels));
  const file = await stream(`/Length1 ${font.bytes.length}`, font.bytes), name = "DejaVuSansCondensed";
  const glyphs = [...page.used].sort(([a], [b]) => a - b);
  const unicode = await stream("", characterMap(glyphs));
  const descriptor = add(`<< /Type /FontDescriptor /FontName /${name} /Flags 32 /FontBBox [${font.box.join(" ")}] ` +
    `/ItalicAngle 0 /Ascent ${font.up} /Descent ${font.down} /CapHeight ${font.up} /StemV 80 /FontFile2 ${file} 0 R >>`);
  const descendant = add(`<< /Type /Font /Subtype /CIDFontType2 /BaseFont /${name} /CIDToGIDMap /Identity ` +
    `/CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> /FontDescriptor ${descriptor} 0 R ` +
    `/W [${glyphs.map(([glyph]) => `${glyph} [${font.width(glyph)}]`).join(" ")}] >>`);
  const type0 = add(`<< /Type /Font /Subtype /Type0 /BaseFont /${name} /Encoding /Identity-H ` +
    `/DescendantFonts [${descendant} 0 R] /ToUnicode ${unicode} 0 R >>`);
  const states = [...page.alphas].map(([operands, key]) => `/${key} << ${operands} >>`).join(" ");
  const pictures = images.map((object, k) => `/I${k} ${object} 0 R`).join(" ");
  const pages = objects.length + 2;
  const only = add(`<< /Type /Page /Parent ${pages} 0 R /MediaBox [0 0 ${numbers(width, height)}] /Contents ${content} 0 R ` +
    `/Resources << /Font << /F ${type0} 0 R >> /ExtGState << ${states} >> /XObject << ${pictures} >> >> >>`);
  add(`<< /Type /Pages /Kids [${only} 0 R] /Count 1 >>`);
  const root = add(`<< /Type /Catalog /Pages ${pages} 0 R >>`);
  const utf16 = [...title].map((c) => [...Array(c.length)].map((_, k) => hex(c.charCodeAt(k))).join("")).join("");
  const info = add(`<< /Title <feff${utf16}> /Producer (deediff) >>`);

  const parts = [new Uint8Array([...encoder.encode("%PDF-1.7\n%"), 0xe2, 0xe3, 0xcf, 0xd3, 10])], places = [];
  let length = parts[0].length;
  const put = (bytes) => {
    parts.push(bytes);
    length += bytes.length;
  };
  objects.forEach((body, k) => {
    places.push(length);
    put(encoder.encode(`${k + 1} 0 obj\n`));
    body.forEach(put);
    put(encoder.encode("\nendobj\n"));
  });
  const rows = places.map((place) => `${String(place).padStart(10, "0")} 00000 n \n`).join("");
  const count = objects.length + 1;
  parts.push(encoder.encode(`xref\n0 ${count}\n0000000000 65535 f \n${rows}trailer\n<< /Size ${count} /Root ${root} 0 R ` +
    `/Info ${info} 0 R >>\nstartxref\n${length}\n%%EOF\n`));
  return new Blob(parts, { type: "application/pdf" });
}

// Colours, and a mask where some pixel is not opaque.
async function imageObject(stream, { width, height, data }) {
  const pixels = width * height, colours = new Uint8Array(3 * pixels), mask = new Uint8Array(pixels);
  for (let k = 0; k < pixels; k++) {
    colours.set(data.subarray(4 * k, 4 * k + 3), 3 * k);
    mask[k] = data[4 * k + 3];
  }
  const entries = `/Type /XObject /Subtype /Image /Width ${width} /Height ${height} /BitsPerComponent 8`;
  const opaque = mask.every((value) => value === 255);
  const under = opaque ? "" : ` /SMask ${await stream(`${entries} /ColorSpace /DeviceGray`, mask)} 0 R`;
  return stream(`${entries} /ColorSpace /DeviceRGB${under}`, colours);
}

// Which characters the glyphs stand for, so that the text can be searched and copied (section 9.10.3).
function characterMap(glyphs) {
  const units = (character) => [...Array(character.length)].map((_, k) => hex(character.charCodeAt(k))).join("");
  const rows = glyphs.map(([glyph, character]) => `<${hex(glyph)}> <${units(character)}>`);
  const blocks = [];
  for (let k = 0; k < rows.length; k += 100) {
    const block = rows.slice(k, k + 100);
    blocks.push(`${block.length} beginbfchar\n${block.join("\n")}\nendbfchar`);
  }
  return `/CIDInit /ProcSet findresource begin 12 dict begin begincmap
/CIDSystemInfo << /Registry (Adobe) /Ordering (UCS) /Supplement 0 >> def /CMapName /Adobe-Identity-UCS def
/CMapType 2 def 1 begincodespacerange <0000> <ffff> endcodespacerange
${blocks.join("\n")}
endcmap CMapName currentdict /CMap defineresource pop end end`;
}
