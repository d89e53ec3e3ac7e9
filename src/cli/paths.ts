import { join } from 'node:path';
import { packageRoot } from '../base/io/package-root.js';

/** A built program of the package, `main.js` or `bench/overlay.js`. */
export function builtProgram(name: string): string {
  return join(packageRoot(), 'dist', name);
}
