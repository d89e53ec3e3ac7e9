import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import type { Test } from 'tap';
import { proxyHeader } from '../../src/dataplane/ingress/wire/proxy-protocol.js';
import {
  backend,
  client,
  ending,
  endpoint,
  freePort,
  inputs,
  isOpenAt,
  type OpenDriver,
  openIngress,
  readAll,
  refusal,
  until,
  warnings,
} from '../support/ingress-lab.js';

const NAMES = ['127.0.0.2', '127.0.0.3', '127.0.0.4'] as const;

/** What every driver does, over loopback. */
export function proxyConformance(t: Test, driver: OpenDriver): void {
  t.test('three connections reach three tasks, over IPv4 and IPv6', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    for (const name of NAMES) await backend(t, name, target, (socket) => socket.end(name));
    const ingress = openIngress(t, driver);
    ingress.update(
      inputs(
        'tcp',
        published,
        target,
        NAMES.map((name) => endpoint(name)),
      ),
    );
    for (const host of ['127.0.0.1', '::1']) {
      const answers = [];
      for (let i = 0; i < 3; i++) answers.push(await readAll(await client(t, published, host)));
      t.strictSame(answers.sort(), NAMES, host);
    }
  });

  t.test('a task is told of its client first, where the service wants it', async (t) => {
    for (const protocol of ['v1', 'v2'] as const) {
      const [published, target] = [await freePort(), await freePort()];
      await backend(t, NAMES[0], target, (socket) => socket.pipe(socket));
      const ingress = openIngress(t, driver);
      const labels = { 'shoal.client-address': `proxy-${protocol}` };
      ingress.update(inputs('tcp', published, target, [endpoint(NAMES[0])], labels));
      const socket = await client(t, published);
      const ends = [
        { address: '127.0.0.1', port: socket.localPort ?? 0 },
        { address: '127.0.0.1', port: published },
      ] as const;
      socket.end('hello');
      t.equal(await readAll(socket), `${proxyHeader(protocol, 'tcp', ...ends).toString()}hello`);
    }
  });

  t.test('each direction ends by itself, and nothing is lost on the way', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    const body = Buffer.alloc(8 * 1024 * 1024, 'x');
    await backend(t, NAMES[0], target, async (socket) => {
      const text = await readAll(socket);
      socket.write(`${text.length} `);
      socket.end(body);
    });
    const ingress = openIngress(t, driver);
    ingress.update(inputs('tcp', published, target, [endpoint(NAMES[0])]));
    const socket = await client(t, published);
    socket.end(body);
    const answer = await readAll(socket);
    t.equal(answer.length, body.length + String(body.length).length + 1);
    t.ok(answer.startsWith(`${body.length} `));
  });

  t.test('a slow reader holds the sender back', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    let sent = 0;
    await backend(t, NAMES[0], target, (socket) => {
      const chunk = Buffer.alloc(65_536);
      const more = () => {
        do sent += chunk.length;
        while (sent < 256 * 1024 * 1024 && socket.write(chunk));
      };
      socket.on('drain', more);
      more();
    });
    const ingress = openIngress(t, driver);
    ingress.update(inputs('tcp', published, target, [endpoint(NAMES[0])]));
    const socket = await client(t, published);
    socket.pause();
    let before = -1;
    while (sent === 0 || before !== sent) {
      before = sent;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    t.ok(sent > 0 && sent < 64 * 1024 * 1024, `${sent} bytes were taken`);
  });

  t.test('resets are carried across, both ways', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    let served: (code: string) => void = () => undefined;
    const seen = new Promise<string>((resolve) => {
      served = resolve;
    });
    await backend(t, NAMES[0], target, (socket) => {
      socket.once('data', (data) => {
        if (data.toString() === 'break') socket.resetAndDestroy();
        else {
          void ending(socket).then(served);
          socket.write('hello');
        }
      });
    });
    const ingress = openIngress(t, driver);
    ingress.update(inputs('tcp', published, target, [endpoint(NAMES[0])]));
    const broken = await client(t, published);
    broken.write('break');
    t.equal(await ending(broken), 'ECONNRESET');

    const breaking = await client(t, published);
    breaking.write('x');
    await once(breaking, 'data');
    breaking.resetAndDestroy();
    t.equal(await seen, 'ECONNRESET');
    await until(() => {
      const ends = ingress.stats().ports[0]?.ends;
      return ends?.backend_reset === 1 && ends.client_reset === 1;
    });
  });

  t.test('a task that refuses is passed over, and none is a reset', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    await backend(t, NAMES[1], target, (socket) => socket.end('taken'));
    const ingress = openIngress(t, driver);
    ingress.update(
      inputs(
        'tcp',
        published,
        target,
        NAMES.map((name) => endpoint(name)),
      ),
    );
    for (let i = 0; i < 6; i++) t.equal(await readAll(await client(t, published)), 'taken');
    await until(() => (ingress.stats().ports[0]?.connectFailures ?? 0) >= 6);
    ingress.update(inputs('tcp', published, target, [endpoint(NAMES[0])]));
    t.equal(await refusal(published), 'ECONNRESET');
    ingress.update(inputs('tcp', published, target, []));
    t.equal(await refusal(published), 'ECONNRESET');
    await until(() => {
      const ends = ingress.stats().ports[0]?.ends;
      return ends?.unreachable === 1 && ends.no_backend === 1;
    });
  });

  t.test(
    'a task that takes connections and says nothing is passed over, and taken back',
    async (t) => {
      const [published, target] = [await freePort(), await freePort()];
      let isStuck = true;
      let met = 0;
      await backend(t, NAMES[0], target, (socket) =>
        socket.once('data', () => socket.end('quick')),
      );
      await backend(t, NAMES[1], target, (socket) => {
        met += 1;
        if (!isStuck) socket.once('data', () => socket.end('again'));
      });
      const ingress = openIngress(t, driver);
      const endpoints = [endpoint(NAMES[0]), endpoint(NAMES[1])];
      const labels = { 'shoal.outlier.ejection': '300ms', 'shoal.outlier.failures': '3' };
      ingress.update(inputs('tcp', published, target, endpoints, labels));
      const answers: string[] = [];
      const ask = async () => {
        const socket = await client(t, published);
        socket.write('x');
        void readAll(socket).then((answer) => answers.push(answer));
      };
      const asking = setInterval(() => void ask(), 20);
      t.teardown(() => clearInterval(asking));
      const isEjected = () => {
        const { known, ready, ejected } = ingress.stats().ports[0]?.backends ?? {};
        return known === 2 && ready === 2 && ejected === 1;
      };
      await until(isEjected);
      const before = met;
      answers.length = 0;
      await until(() => answers.length >= 4);
      t.ok(met - before <= 1, 'one on probation at most');
      isStuck = false;
      await until(() => answers.includes('again'));
    },
  );

  t.test(
    'a task that answers late is passed over; for how long it lets clients wait is measured',
    async (t) => {
      const [published, target] = [await freePort(), await freePort()];
      const waits: (number | undefined)[] = [];
      const ingress = openIngress(t, (policy) =>
        driver({
          ...policy,
          answered: (listener, ticket, waitedMs) => {
            waits.push(waitedMs);
            policy.answered(listener, ticket, waitedMs);
          },
        }),
      );
      await backend(t, NAMES[0], target, (socket) =>
        socket.once('data', () => socket.end('quick')),
      );
      await backend(t, NAMES[1], target, (socket) =>
        socket.once('data', () => setTimeout(() => socket.end('late'), 250)),
      );
      const endpoints = [endpoint(NAMES[0]), endpoint(NAMES[1])];
      ingress.update(inputs('tcp', published, target, endpoints));
      const ask = async () => {
        const socket = await client(t, published);
        await new Promise((resolve) => setTimeout(resolve, 50));
        socket.end('x');
        return readAll(socket);
      };
      const first = await Promise.all([ask(), ask()]);
      t.strictSame(first.sort(), ['late', 'quick']);
      await until(() => waits.length === 2);
      const [quickMs = -1, lateMs = -1] = waits.map(Number).sort((a, b) => a - b);
      t.ok(quickMs >= 0 && quickMs < 200, `quick: ${quickMs} ms`);
      t.ok(lateMs >= 245 && lateMs < 900, `late: ${lateMs} ms, from what the client sent`);

      const asking = setInterval(() => void ask(), 10);
      t.teardown(() => clearInterval(asking));
      await until(() => ingress.stats().ports[0]?.backends.ejected === 1);
      const again = await Promise.all(Array.from({ length: 6 }, ask));
      t.notOk(again.includes('late'), 'nobody gets there any more');
      clearInterval(asking);
      await until(() => ingress.stats().ports[0]?.active === 0);

      ingress.update(inputs('tcp', published, target, [endpoint(NAMES[2])]));
      await backend(t, NAMES[2], target, (socket) => socket.end('220 hello'));
      waits.length = 0;
      await readAll(await client(t, published));
      await until(() => waits.length > 0);
      t.equal(waits.at(-1), undefined, 'whoever speaks first was not asked');
    },
  );

  t.test('what drains keeps its connections until it is gone, and gets no more', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    for (const name of NAMES)
      await backend(t, name, target, (socket) => {
        socket.on('data', (data) => socket.write(`${name} ${data.toString()}`));
      });
    const ingress = openIngress(t, driver);
    ingress.update(inputs('tcp', published, target, [endpoint(NAMES[0])]));
    const old = await client(t, published);
    const say = async (text: string) => {
      old.write(text);
      return String((await once(old, 'data'))[0]);
    };
    t.equal(await say('1'), `${NAMES[0]} 1`);
    ingress.update(
      inputs('tcp', published, target, [endpoint(NAMES[0], 'draining'), endpoint(NAMES[1])]),
    );
    for (let i = 0; i < 4; i++) {
      const fresh = await client(t, published);
      fresh.write('x');
      t.equal(String((await once(fresh, 'data'))[0]), `${NAMES[1]} x`);
    }
    t.equal(await say('2'), `${NAMES[0]} 2`, 'the old one lives on');
    ingress.update(inputs('tcp', published, target, [endpoint(NAMES[1])]));
    t.equal(await ending(old), 'ECONNRESET', 'the task is gone');
  });

  t.test('a port that somebody has is told, and opened when it is free', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    await backend(t, NAMES[0], target, (socket) => socket.end('here'));
    const thief = createServer((socket) => socket.end('thief')).listen(published, '::');
    await once(thief, 'listening');
    const ingress = openIngress(t, driver);
    ingress.update(inputs('tcp', published, target, [endpoint(NAMES[0])]));
    while (ingress.problems().length === 0) await new Promise((resolve) => setImmediate(resolve));
    const message = `port ${published}/tcp is taken on this node by somebody: free it, or publish another`;
    t.match(ingress.problems(), [{ key: `tcp/${published}`, serviceName: 'web', message }]);
    t.ok(warnings.includes(message));
    t.equal(ingress.stats().ports[0]?.open, false);
    thief.close();
    await once(thief, 'close');
    while (ingress.problems().length > 0) await new Promise((resolve) => setImmediate(resolve));
    t.equal(await readAll(await client(t, published)), 'here');
  });

  t.test('a service that is removed leaves its open connections alone', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    await backend(t, NAMES[0], target, (socket) => {
      socket.on('data', (data) => socket.write(data));
    });
    const ingress = openIngress(t, driver);
    ingress.update(inputs('tcp', published, target, [endpoint(NAMES[0])]));
    const old = await client(t, published);
    old.write('a');
    await once(old, 'data');
    ingress.update({ services: [], endpoints: [], hostPorts: [] });
    old.write('b');
    t.equal(String((await once(old, 'data'))[0]), 'b');
    t.strictSame(ingress.stats().ports, []);
  });

  t.test('turns are strict, also where backends come and go', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    for (const name of NAMES) await backend(t, name, target, (socket) => socket.end(name));
    const ingress = openIngress(t, driver);
    const ask = async (count: number) => {
      const answers: string[] = [];
      for (let i = 0; i < count; i++) answers.push(await readAll(await client(t, published)));
      return answers;
    };
    const all = NAMES.map((name) => endpoint(name));
    ingress.update(inputs('tcp', published, target, all));
    const round = await ask(3);
    t.strictSame([...round].sort(), NAMES);
    t.strictSame(
      await ask(61),
      Array.from({ length: 61 }, (_, i) => round[i % 3]),
    );
    ingress.update(inputs('tcp', published, target, all));
    t.strictSame(await ask(2), [round[1], round[2]], 'nobody loses his turn');
    const without = all.filter(({ taskId }) => taskId !== round[1]);
    ingress.update(inputs('tcp', published, target, without));
    t.strictSame(await ask(4), [round[0], round[2], round[0], round[2]]);
  });

  t.test('weights hold, and who asks for the client gets one that is his', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    for (const name of NAMES) await backend(t, name, target, (socket) => socket.end(name));
    const ingress = openIngress(t, driver);
    const endpoints = NAMES.map((name, i) => ({ ...endpoint(name), slot: i + 1 }));
    const counts = async (labels: Readonly<Record<string, string>>, count: number) => {
      ingress.update(inputs('tcp', published, target, endpoints, labels));
      const answers = new Map<string, number>();
      for (let i = 0; i < count; i++) {
        const answer = await readAll(await client(t, published));
        answers.set(answer, (answers.get(answer) ?? 0) + 1);
      }
      return answers;
    };
    const weighed = await counts(
      { 'shoal.balance': 'wrr', 'shoal.balance.weights': '1=3,2=2' },
      36,
    );
    t.strictSame([...weighed].sort(), [
      [NAMES[0], 18],
      [NAMES[1], 12],
      [NAMES[2], 6],
    ]);
    t.equal((await counts({ 'shoal.balance': 'sh' }, 6)).size, 1, 'one client, one task');
  });

  t.test('clients that labels do not let in are reset, from the next connection on', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    await backend(t, NAMES[0], target, (socket) => socket.pipe(socket));
    const ingress = openIngress(t, driver);
    const label = (labels: Readonly<Record<string, string>>) =>
      ingress.update(inputs('tcp', published, target, [endpoint(NAMES[0])], labels));
    const echo = async (socket: Socket) => {
      socket.write('x');
      return String((await once(socket, 'data'))[0]);
    };
    label({});
    const old = await client(t, published);
    t.equal(await echo(old), 'x');
    label({ 'shoal.allow-from': '127.0.0.9/32' });
    for (let i = 0; i < 3; i++) t.equal(await refusal(published), 'ECONNRESET');
    const other = connect({ port: published, host: '127.0.0.1', localAddress: '127.0.0.9' });
    t.teardown(() => other.destroy());
    t.equal(await echo(other), 'x');
    t.equal(await echo(old), 'x', 'open connections go on');
    await until(() => ingress.flows('web', 9).total === 2);
    const { total, flows } = ingress.flows('s1', 9);
    t.equal(total, 2);
    t.match(
      flows.sort((a, b) => a.client.localeCompare(b.client)),
      [['127.0.0.1', old.localPort] as const, ['127.0.0.9', other.localPort] as const].map(
        ([client, clientPort]) => ({
          client,
          clientPort,
          port: `tcp/${published}`,
          serviceId: 's1',
          serviceName: 'web',
          taskId: NAMES[0],
          backend: `${NAMES[0]}:${target}`,
          ageMs: Number,
        }),
      ),
    );
    t.match(ingress.flows(undefined, 1), { total: 2, flows: { length: 1 } });
    t.strictSame(ingress.flows('other', 9), { total: 0, flows: [] });

    label({ 'shoal.connections-max': '3' });
    const third = await client(t, published);
    t.equal(await echo(third), 'x');
    t.equal(await refusal(published), 'ECONNRESET');
    third.destroy();
    await until(() => ingress.stats().ports[0]?.active === 2);
    t.equal(await echo(await client(t, published)), 'x');

    label({ 'shoal.rate': '1/s', 'shoal.allow-from': '127.0.0.0/8' });
    t.equal(await echo(await client(t, published)), 'x');
    t.equal(await refusal(published), 'ECONNRESET');
    await until(() => ingress.stats().ports[0]?.ends.refused === 5);
    t.strictSame(ingress.stats().ports[0]?.refusals, {
      allow_from: 3,
      connections_max: 1,
      rate: 1,
    });
    label({});
    for (let i = 0; i < 3; i++) t.equal(await echo(await client(t, published)), 'x');
  });

  t.test(
    'a port that is bound listens there only, and moves; open connections go on',
    async (t) => {
      const [published, target] = [await freePort(), await freePort()];
      await backend(t, NAMES[0], target, (socket) => socket.pipe(socket));
      const own = ['127.0.0.1', '127.0.0.9', '::1'].map((address) => ({ address, ifname: 'lo' }));
      const ingress = openIngress(t, driver, { ownAddresses: () => own });
      const bindTo = (bind: string | undefined) => {
        const labels: Record<string, string> = bind === undefined ? {} : { 'shoal.bind': bind };
        ingress.update(inputs('tcp', published, target, [endpoint(NAMES[0])], labels));
      };
      bindTo(undefined);
      const old = await client(t, published);
      old.write('x');
      await once(old, 'data');
      const all = ['127.0.0.1', '127.0.0.9', '::1'];
      for (const [bind, places] of [
        ['::1', ['::1']],
        ['127.0.0.0/8', ['127.0.0.1', '127.0.0.9']],
        ['lo', all],
        ['::', ['::1']],
        ['nowhere0', []],
        [undefined, ['::']],
        ['127.0.0.9,::1', ['127.0.0.9', '::1']],
      ] as const) {
        bindTo(bind);
        await until(() => ingress.stats().ports[0]?.openAt.join() === places.join());
        for (const address of all)
          t.equal(
            await isOpenAt(published, address),
            places.some((place) => place === '::' || place === address),
            `${bind}: ${address}`,
          );
      }
      old.write('x');
      t.equal(String((await once(old, 'data'))[0]), 'x');

      const taken = await backend(t, '127.0.0.10', published, () => undefined);
      own.push({ address: '127.0.0.10', ifname: 'lo' }, { address: '127.0.0.11', ifname: 'lo' });
      bindTo('127.0.0.10,127.0.0.11,192.0.2.77');
      await until(() => ingress.problems().length === 1);
      t.match(
        ingress.problems()[0]?.message,
        / is taken on this node at 127\.0\.0\.10 by somebody/,
      );
      t.match(ingress.stats().ports, [{ open: false, openAt: ['127.0.0.11'] }]);
      own.push({ address: '192.0.2.77', ifname: 'eth0' });
      taken.close();
      await until(() => ingress.problems().length === 0);
      t.match(ingress.stats().ports, [{ open: true, openAt: ['127.0.0.10', '127.0.0.11'] }]);
      own.pop();
      own.pop();
      await until(() => ingress.stats().ports[0]?.openAt.join() === '127.0.0.10');
      t.notOk(await isOpenAt(published, '127.0.0.11'), 'an address that is gone');
    },
  );

  t.test('whoever speaks first is heard, and all is counted', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    await backend(t, NAMES[0], target, (socket) => {
      socket.write('220 hello\n');
      socket.once('data', (data) => socket.end(`bye ${data.toString()}`));
    });
    const ingress = openIngress(t, driver);
    ingress.update(inputs('tcp', published, target, [endpoint(NAMES[0])]));
    const sockets = await Promise.all(Array.from({ length: 40 }, () => client(t, published)));
    await Promise.all(
      sockets.map(async (socket) => {
        t.equal(String((await once(socket, 'data'))[0]), '220 hello\n');
        const rest = readAll(socket);
        socket.end('quit');
        t.equal(await rest, 'bye quit');
      }),
    );
    await until(() => ingress.stats().ports[0]?.ends.closed === 40);
    t.strictSame(ingress.flows(undefined, 99), { total: 0, flows: [] });
    t.match(ingress.stats(), {
      flows: 0,
      ports: [{ accepted: 40, active: 0, connects: 40, bytesUp: 160, bytesDown: 720 }],
    });
  });

  t.test('what a task said before it broke off is handed on', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    await backend(t, NAMES[0], target, (socket) => {
      socket.pause();
      socket.write('too large', () => setTimeout(() => socket.destroy(), 20));
    });
    const ingress = openIngress(t, driver);
    ingress.update(inputs('tcp', published, target, [endpoint(NAMES[0])]));
    const socket = await client(t, published);
    socket.write(Buffer.alloc(32 * 1024));
    t.equal(String((await once(socket, 'data'))[0]), 'too large');
    t.ok(['ECONNRESET', 'EPIPE', 'end'].includes(await ending(socket)));
  });
}
