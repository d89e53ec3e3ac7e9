import t from 'tap';
import { isRoot, namespaceBed } from '../support/driver-lab.js';
import { packetIoConformance } from './packet-io.js';

if (isRoot) packetIoConformance(t, namespaceBed(t, 'portable'));
else t.plan(0, 'needs root on Linux');
