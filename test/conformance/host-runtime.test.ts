import t from 'tap';
import { cannotMakeNamespaces } from '../dataplane/sys/netns-fixture.js';
import { hostRuntimeBed } from '../support/host-runtime-bed.js';
import { runtimeConformance } from './runtime.js';

if (cannotMakeNamespaces) t.plan(0, cannotMakeNamespaces);
else {
  runtimeConformance(
    t,
    hostRuntimeBed('native', ['netns', 'health', 'limits', 'mounts', 'tty', 'exec']),
  );
}
