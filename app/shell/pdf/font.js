// The font of saved PDFs: what text is laid out with, and the widths and numbers of its glyphs.
export async function loadFont(family) {
  const bytes = await (await fetch(new URL("figure.ttf", import.meta.url))).arrayBuffer();
  document.fonts.add(await new FontFace(family, bytes).load());
  const view = new DataView(bytes), tables = {};
  for (let k = 0; k < view.getUint16(4); k++) {
    const at = 12 + 16 * k;
    tables[String.fromCharCode(...new Uint8Array(bytes, at, 4))] = view.getUint32(at + 8);
  }
  const { head, hhea, hmtx, cmap } = tables, scale = 1000 / view.getUint16(head + 18);
  const known = view.getUint16(hhea + 34); // glyphs with a width of their own; the rest have the last one's
  const width = (glyph) => Math.round(scale * view.getUint16(hmtx + 4 * Math.min(glyph, known - 1)));
  const of = (at) => Math.round(scale * view.getInt16(at));
  const box = [36, 38, 40, 42].map((k) => of(head + k));
  return { bytes: new Uint8Array(bytes), glyphs: characters(view, cmap), width, box, up: of(hhea + 4), down: of(hhea + 6) };
}

// The numbers of glyphs by character, of a table in format 4.
function characters(view, cmap) {
  const found = new Map();
  for (let k = 0; k < view.getUint16(cmap + 2); k++) {
    const at = cmap + view.getUint32(cmap + 8 + 8 * k);
    if (view.getUint16(at) !== 4) continue;
    const twice = view.getUint16(at + 6), ends = at + 14, starts = ends + twice + 2;
    for (let s = 0; s < twice; s += 2) {
      const last = view.getUint16(ends + s), delta = view.getUint16(starts + twice + s);
      const where = starts + 2 * twice + s, offset = view.getUint16(where);
      for (let code = view.getUint16(starts + s); code <= last && code < 0xffff; code++) {
        const glyph = offset ? view.getUint16(where + offset + 2 * (code - view.getUint16(starts + s))) : code;
        if (glyph) found.set(code, (glyph + delta) & 0xffff);
      }
    }
  }
  return found;
}
