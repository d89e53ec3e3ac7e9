import t from 'tap';
import { portsThatListen } from '../../../src/dataplane/io/netns.js';

t.test('ports that listen for others are read from the kernel’s tables', async (t) => {
  const table = [
    '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode',
    '   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0',
    '   1: 0100007F:0051 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0',
    '   2: 0500000A:01BB 0600000A:C001 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 100 0 0 10 0',
    '   3: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 4',
    '   4: 00000000000000000000000001000000:1F91 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 5',
  ].join('\n');
  t.strictSame([...portsThatListen(table, '0A')], [80, 8080]);
  t.strictSame([...portsThatListen('', '0A')], []);
});
