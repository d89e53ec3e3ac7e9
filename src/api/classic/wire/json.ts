/** Docker's JSON, of which little is believed. */
export type Json = Readonly<Record<string, unknown>>;

export const objectOf = (value: unknown): Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : {};

export const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);

export const textsOf = (value: unknown): readonly string[] =>
  listOf(value).filter((one) => typeof one === 'string');

export const textOf = (value: unknown): string => (typeof value === 'string' ? value : '');

export const numberOf = (value: unknown): number =>
  typeof value === 'number' && Number.isFinite(value) ? value : 0;

/** Its members that are text. */
export function labelsOf(value: unknown): Readonly<Record<string, string>> {
  const texts = Object.entries(objectOf(value)).filter(([, one]) => typeof one === 'string');
  return Object.fromEntries(texts) as Readonly<Record<string, string>>;
}
