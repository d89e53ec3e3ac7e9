import { badRequest } from '../wire/errors.js';
import { API_VERSION, API_VERSION_MIN } from '../wire/system-json.js';

/** Negative, zero or positive, as `a` is older than, equal to or newer than `b`; parts are numbers. */
export function compareVersions(a: string, b: string): number {
  const left = a.split('.').map(Number);
  const right = b.split('.').map(Number);
  for (let index = 0; index < Math.max(left.length, right.length); index++) {
    const difference = (left[index] ?? 0) - (right[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

/**
 * Takes `/v1.45` off a path; a path without it is of the newest version. Refuses versions which the
 * API does not speak, in words that the CLI's users know.
 */
export function splitVersion(path: string): { readonly version: string; readonly route: string } {
  const match = /^\/v(\d{1,6}(?:\.\d{1,6}){0,3})(\/.*)$/s.exec(path);
  if (match?.[1] === undefined || match[2] === undefined) {
    return { version: API_VERSION, route: path };
  }
  const version = match[1];
  if (compareVersions(version, API_VERSION) > 0) {
    throw badRequest(
      `client version ${version} is too new. Maximum supported API version is ${API_VERSION}`,
    );
  }
  if (compareVersions(version, API_VERSION_MIN) < 0) {
    throw badRequest(
      `client version ${version} is too old. Minimum supported API version is ${API_VERSION_MIN}, please upgrade your client to a newer version`,
    );
  }
  return { version, route: match[2] };
}
