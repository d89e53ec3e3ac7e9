import type { Figure } from './statistics.js';

export interface Panel {
  readonly title: string;
  readonly unit: string;
  readonly bars: readonly { readonly name: string; readonly figure: Figure | undefined }[];
}

const PANEL_WIDTH = 300;
const PANEL_HEIGHT = 210;
const COLUMNS = 3;
const COLOURS = ['#9aa5b1', '#3d7ab8', '#e07b39', '#c9b458', '#6a9f58', '#a05195'];

const escapeXml = (text: string) =>
  text.replace(/[&<>]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[c] ?? c);

function panelSvg(panel: Panel, x: number, y: number, format: (n: number) => string): string {
  const max = Math.max(...panel.bars.map((b) => b.figure?.max ?? 0), 1e-9);
  const height = PANEL_HEIGHT - 70;
  const width = (PANEL_WIDTH - 40) / panel.bars.length;
  const bars = panel.bars.map(({ name, figure }, i) => {
    const left = x + 20 + i * width;
    const base = y + 30 + height;
    const label = `<text x="${left + width / 2}" y="${base + 14}" font-size="10" text-anchor="middle">${escapeXml(name)}</text>`;
    if (figure === undefined) return label;
    const top = (value: number) => base - (value / max) * height;
    return `<rect x="${left + 4}" y="${top(figure.median)}" width="${width - 8}" height="${base - top(figure.median)}" fill="${COLOURS[i % COLOURS.length]}"/>
<line x1="${left + width / 2}" x2="${left + width / 2}" y1="${top(figure.min)}" y2="${top(figure.max)}" stroke="#222"/>
<text x="${left + width / 2}" y="${top(figure.max) - 3}" font-size="10" text-anchor="middle">${format(figure.median)}</text>${label}`;
  });
  return `<text x="${x + 20}" y="${y + 14}" font-size="12" font-weight="bold">${escapeXml(panel.title)} (${escapeXml(panel.unit)})</text>\n${bars.join('\n')}`;
}

/** Bars with their spread, one panel a figure: a page that needs no program to be read. */
export function plotSvg(
  title: string,
  panels: readonly Panel[],
  format: (n: number) => string,
): string {
  const rows = Math.ceil(panels.length / COLUMNS);
  const width = COLUMNS * PANEL_WIDTH;
  const height = rows * PANEL_HEIGHT + 40;
  const body = panels.map((panel, i) =>
    panelSvg(
      panel,
      (i % COLUMNS) * PANEL_WIDTH,
      36 + Math.floor(i / COLUMNS) * PANEL_HEIGHT,
      format,
    ),
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" font-family="sans-serif">
<rect width="${width}" height="${height}" fill="white"/>
<text x="20" y="22" font-size="14">${escapeXml(title)}</text>
${body.join('\n')}
</svg>
`;
}
