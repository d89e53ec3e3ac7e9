/**
 * An operational error: expected, typed, and for a caller to act on.
 *
 * `detail` is a union of plain objects keyed by `code`, so callers narrow on
 * `error.detail.code` and never read the message, which is for people: one clear sentence
 * that says what to do, lower case, without a full stop.
 */
export abstract class AgentError<Detail extends { readonly code: string }> extends Error {
  readonly detail: Detail;

  constructor(detail: Detail, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.detail = detail;
  }

  get code(): Detail['code'] {
    return this.detail.code;
  }
}
