/**
 * JSON of objects that never change, made once for each. A waiting CLI asks for the same tasks five times a
 * second, and most of them are as they were.
 */
export class JsonTexts<T extends object> {
  readonly #texts = new WeakMap<T, { readonly text: string; readonly from: readonly unknown[] }>();
  readonly #show: (object: T) => unknown;

  constructor(show: (object: T) => unknown) {
    this.#show = show;
  }

  /** @param from What else the JSON is made of; it is made anew if any of these is another object. */
  of(object: T, from: readonly unknown[] = []): string {
    const known = this.#texts.get(object);
    if (known?.from.length === from.length && known.from.every((one, at) => one === from[at]))
      return known.text;
    const text = JSON.stringify(this.#show(object));
    this.#texts.set(object, { text, from });
    return text;
  }
}

export const jsonList = (texts: readonly string[]): string => `[${texts.join(',')}]`;
