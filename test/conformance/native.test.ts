import t from 'tap';
import { loadNative, nativeUnavailableReason } from '../../src/dataplane/io/native-binding.js';
import { isRoot, namespaceBed } from '../support/driver-lab.js';
import { packetIoConformance } from './packet-io.js';

if (!isRoot) t.plan(0, 'needs root on Linux');
else if (loadNative() === undefined) t.plan(0, nativeUnavailableReason());
else packetIoConformance(t, namespaceBed(t, 'native'));
