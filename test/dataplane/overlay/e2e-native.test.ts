import t from 'tap';
import { loadNative, nativeUnavailableReason } from '../../../src/dataplane/io/native-binding.js';
import { isRoot } from '../../support/driver-lab.js';
import { overlayEndToEnd } from '../../support/overlay-e2e.js';

if (!isRoot) t.plan(0, 'needs root on Linux');
else if (loadNative() === undefined) t.plan(0, nativeUnavailableReason());
else overlayEndToEnd('native');
