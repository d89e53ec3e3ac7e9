/** From several writers to one reader, who sets the pace: a writer waits until its item was taken. */
export class ItemQueue<Item> {
  readonly #items: { readonly item: Item; readonly taken: () => void }[] = [];
  #isEnded = false;
  #wake: () => void = () => undefined;

  /** Resolves when the reader comes for the next one, or will not come any more. */
  put(item: Item): Promise<void> {
    if (this.#isEnded) return Promise.resolve();
    return new Promise((taken) => {
      this.#items.push({ item, taken });
      this.#wake();
    });
  }

  /** Nothing is put any more; what is there is still read. */
  end(): void {
    this.#isEnded = true;
    this.#wake();
  }

  /** Nothing is read any more. */
  drop(): void {
    this.end();
    for (const { taken } of this.#items.splice(0)) taken();
  }

  /** For one reader, once. */
  async *read(): AsyncGenerator<Item, void, undefined> {
    try {
      for (;;) {
        const next = this.#items.shift();
        if (next !== undefined) {
          yield next.item;
          next.taken();
        } else if (this.#isEnded) {
          return;
        } else {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        }
      }
    } finally {
      this.drop();
    }
  }
}
