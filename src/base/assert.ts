/** A programmer's error. Caught nowhere but at the top, which logs it and exits. */
export class AssertionFailed extends Error {
  override readonly name = 'AssertionFailed';
}

/** Never used on data that came from a peer or an operator. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new AssertionFailed(message);
}

/** Makes a `switch` over a union exhaustive at compile time. */
export function unreachable(value: never): never {
  throw new AssertionFailed(`unreachable: ${JSON.stringify(value)}`);
}
