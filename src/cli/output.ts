/** Columns padded to their widest cell, two blanks apart, as docker prints tables. */
export function formatTable(
  header: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  const lines = [header, ...rows];
  const widths = header.map((_, column) =>
    Math.max(...lines.map((line) => (line[column] ?? '').length)),
  );
  return lines
    .map((line) =>
      line
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('   ')
        .trimEnd(),
    )
    .join('\n');
}

/** Any JSON value as lines for people: `key: value`, lists and objects indented below their key. */
export function formatValue(value: unknown, indent = ''): string {
  if (typeof value !== 'object' || value === null) return `${indent}${formatScalar(value)}`;
  const entries: readonly (readonly [string, unknown])[] = Array.isArray(value)
    ? value.map((item) => ['-', item] as const)
    : Object.entries(value);
  if (entries.length === 0) return `${indent}none`;
  return entries
    .map(([key, item]) => {
      const label = key === '-' ? '-' : `${key}:`;
      if (typeof item !== 'object' || item === null)
        return `${indent}${label} ${formatScalar(item)}`;
      if (Object.keys(item).length === 0) return `${indent}${label} none`;
      return `${indent}${label}\n${formatValue(item, `${indent}  `)}`;
    })
    .join('\n');
}

function formatScalar(value: unknown): string {
  return value === undefined || value === null ? '-' : String(value);
}

export function printJson(value: unknown): void {
  console.log(JSON.stringify(value, null, 2));
}
