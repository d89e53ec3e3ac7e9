/** Tells what is new from what was met before, among the last `max` different keys. */
export class Once {
  readonly #max: number;
  readonly #seen = new Set<string>();

  constructor(max: number) {
    this.#max = max;
  }

  /** True at the first time of `key`; again after `max` others have come. */
  first(key: string): boolean {
    if (this.#seen.has(key)) return false;
    if (this.#seen.size >= this.#max) {
      const [oldest = ''] = this.#seen;
      this.#seen.delete(oldest);
    }
    this.#seen.add(key);
    return true;
  }
}
