/** Reads labels of one service; what is wrong with them is told, one sentence each, in `problems`. */
export class LabelReader {
  readonly problems: string[] = [];
  readonly #labels: Readonly<Record<string, string>>;
  readonly #verdict: string;

  /** @param verdict What becomes of a label that is not understood: `is ignored`, `is not valid`. */
  constructor(labels: Readonly<Record<string, string>>, verdict: string) {
    this.#labels = labels;
    this.#verdict = verdict;
  }

  /**
   * @param parse Returns `undefined` for what is none.
   * @param wanted How the sentence goes on after `it must be`.
   * @param invalid What holds in place of a value that is none; default as if there were no label.
   */
  read<Value>(
    name: string,
    absent: Value,
    parse: (text: string) => Value | undefined,
    wanted: string,
    invalid: Value = absent,
  ): Value {
    const text = this.#labels[name];
    if (text === undefined) return absent;
    const value = parse(text.trim());
    if (value !== undefined) return value;
    this.problems.push(`label ${name}=${text} ${this.#verdict}: it must be ${wanted}`);
    return invalid;
  }
}
