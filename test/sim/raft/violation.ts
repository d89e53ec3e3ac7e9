/** Something that must never be: the run ends, and its seed is named. */
export class Violation extends Error {
  override readonly name = 'Violation';
}
