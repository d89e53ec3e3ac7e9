import t from 'tap';
import { isRoot } from '../../support/driver-lab.js';
import { overlayEndToEnd } from '../../support/overlay-e2e.js';

if (isRoot) overlayEndToEnd('portable');
else t.plan(0, 'needs root on Linux');
