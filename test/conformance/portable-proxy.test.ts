import t from 'tap';
import { portable } from '../support/ingress-lab.js';
import { proxyConformance } from './proxy.js';

proxyConformance(t, portable);
