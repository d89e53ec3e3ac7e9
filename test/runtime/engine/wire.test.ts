import fc from 'fast-check';
import t from 'tap';
import { containerJson, sandboxJson } from '../../../src/runtime/engine/wire/container-json.js';
import { imageParts } from '../../../src/runtime/engine/wire/image-name.js';
import { pauseProgram, tarOf } from '../../../src/runtime/engine/wire/pause-image.js';
import { LineReader, RawStreamReader } from '../../../src/runtime/engine/wire/raw-stream.js';
import { parseNanos, splitStamp } from '../../../src/runtime/engine/wire/stamp.js';
import type { RuntimeTask } from '../../../src/runtime/index.js';
import { fuzzRuns } from '../../support/fuzz.js';

t.test('times are read to the nanosecond, in any zone', async (t) => {
  const cases = [
    { text: '2026-11-27T02:18:57.020333744Z', want: 1_795_745_937_020_333_744n },
    { text: '2026-11-27T03:18:57.5+01:00', want: 1_795_745_937_500_000_000n },
    { text: '2026-11-26T23:18:57-03:00', want: 1_795_745_937_000_000_000n },
    { text: '1970-01-01T00:00:00Z', want: 0n },
    { text: 'yesterday', want: undefined },
    { text: '', want: undefined },
  ];
  for (const { text, want } of cases) t.equal(parseNanos(text), want, text);
  fc.assert(
    fc.property(
      fc.date({ min: new Date(0), max: new Date(2 ** 42), noInvalidDate: true }),
      (date) => t.equal(parseNanos(date.toISOString()), BigInt(date.getTime()) * 1_000_000n),
    ),
    { numRuns: 50 },
  );
  const { atNs, data } = splitStamp(Buffer.from('1970-01-01T00:00:01Z a b\n'));
  t.strictSame([atNs, String(data)], [1_000_000_000n, 'a b\n']);
  t.strictSame(String(splitStamp(Buffer.from('no time\n')).data), 'no time\n');
});

t.test('multiplexed output comes apart, however it is cut', async (t) => {
  const piece = fc.record({
    stream: fc.constantFrom('stdout' as const, 'stderr' as const),
    data: fc.uint8Array({ maxLength: 100 }).map((bytes) => Buffer.from(bytes)),
  });
  fc.assert(
    fc.property(fc.array(piece), fc.integer({ min: 1, max: 40 }), (pieces, step) => {
      const bytes = Buffer.concat(
        pieces.flatMap(({ stream, data }) => {
          const head = Buffer.alloc(8);
          head.writeUInt8(stream === 'stdout' ? 1 : 2, 0);
          head.writeUInt32BE(data.length, 4);
          return [head, data];
        }),
      );
      const reader = new RawStreamReader();
      const out = [];
      for (let at = 0; at < bytes.length; at += step)
        out.push(...(reader.push(bytes.subarray(at, at + step)) ?? []));
      return t.same(out, pieces);
    }),
    { numRuns: fuzzRuns(40) },
  );
  fc.assert(
    fc.property(fc.uint8Array(), (bytes) => void new RawStreamReader().push(bytes)),
    { numRuns: fuzzRuns(200) },
  );
  t.equal(new RawStreamReader().push(Buffer.from('0900000000000000', 'hex')), undefined);
  const lines = new LineReader();
  t.strictSame(lines.push(Buffer.from('a\nb')).map(String), ['a\n']);
  t.strictSame(lines.push(Buffer.from('c\n\nd')).map(String), ['bc\n', '\n']);
  t.strictSame(lines.end().map(String), ['d']);
});

t.test('names of images are cut where Docker cuts them', async (t) => {
  const cases = [
    ['nginx', 'nginx', 'latest'],
    ['nginx:1.27', 'nginx', '1.27'],
    ['registry:5000/app/web', 'registry:5000/app/web', 'latest'],
    ['registry:5000/app/web:2', 'registry:5000/app/web', '2'],
    ['web:1@sha256:abc', 'web', 'sha256:abc'],
  ] as const;
  for (const [image, name, tag] of cases) t.strictSame(imageParts(image), { name, tag }, image);
});

t.test('the program of sandboxes is an ELF file for its machine', async (t) => {
  for (const [machine, number, code] of [
    ['x64', 62, 'b8220000000f05ebf7'],
    ['arm64', 183, '000080d2010080d2020080d2030080d2280980d2010000d4faffff17'],
  ] as const) {
    const elf = pauseProgram(machine);
    t.equal(elf.toString('latin1', 0, 4), '\x7fELF');
    t.equal(elf.readUInt16LE(18), number);
    t.equal(elf.readBigUInt64LE(24), 0x400078n, 'begins behind its headers');
    t.equal(elf.subarray(120).toString('hex'), code);
    t.equal(elf.readBigUInt64LE(96), BigInt(elf.length));
  }
  const tar = tarOf('pause', Buffer.from('x'));
  t.equal(tar.length % 512, 0);
  t.equal(tar.toString('latin1', 257, 262), 'ustar');
});

t.test('a task becomes a container, and a sandbox what belongs to its namespace', async (t) => {
  const task = {
    id: 't1',
    name: 'web.1.t1',
    container: {
      image: 'web:1',
      args: ['serve'],
      hostname: 'h1',
      sysctls: { 'net.core.somaxconn': '9', 'kernel.msgmax': '1' },
      hosts: ['10.0.0.9 db data'],
      dns: { nameservers: ['10.0.0.1'], options: ['ndots:2'] },
      stopSignal: 'SIGQUIT',
      health: { test: ['NONE'], intervalMs: 1.5 },
      mounts: [
        { type: 'volume', source: 'v', target: '/v', readOnly: true, volume: { noCopy: true } },
      ],
      privileges: { Seccomp: { Mode: 'unconfined' }, NoNewPrivileges: true },
    },
    resources: { limits: { memoryBytes: 5, nanoCpus: 6, pids: 7 } },
    logDriver: { name: 'local', options: { 'max-size': '1m' } },
    labels: { a: 'b' },
    network: 'resolver',
    hosts: [],
  } as unknown as RuntimeTask;
  const container = containerJson(task, 'o', 'sb', [{ source: '/f/0', target: '/run/secrets/x' }]);
  t.match(container, {
    Image: 'web:1',
    Cmd: ['serve'],
    StopSignal: 'SIGQUIT',
    Labels: { a: 'b', 'com.docker.shoal.task': 't1', 'com.docker.shoal.owner': 'o' },
    Healthcheck: { Test: ['NONE'], Interval: 1_500_000 },
    HostConfig: {
      NetworkMode: 'container:sb',
      Memory: 5,
      NanoCpus: 6,
      PidsLimit: 7,
      LogConfig: { Type: 'local', Config: { 'max-size': '1m' } },
      SecurityOpt: ['seccomp=unconfined', 'no-new-privileges=true'],
      Sysctls: { 'kernel.msgmax': '1' },
      Mounts: [
        {
          Type: 'volume',
          Source: 'v',
          Target: '/v',
          ReadOnly: true,
          VolumeOptions: { NoCopy: true },
        },
        { Type: 'bind', Source: '/f/0', Target: '/run/secrets/x', ReadOnly: true },
      ],
    },
  });
  for (const name of ['Hostname', 'Entrypoint', 'Env']) t.notOk(name in container, name);
  for (const name of ['Dns', 'ExtraHosts'])
    t.notOk(name in (container['HostConfig'] as object), `${name} is refused beside a sandbox`);
  t.match(sandboxJson(task, 'o', 'pause:1'), {
    Hostname: 'h1',
    Cmd: ['t1'],
    HostConfig: {
      NetworkMode: 'none',
      Dns: ['127.0.0.11', '10.0.0.1'],
      DnsOptions: ['ndots:2'],
      ExtraHosts: ['db:10.0.0.9', 'data:10.0.0.9'],
      Sysctls: { 'net.core.somaxconn': '9' },
    },
  });
  t.match(containerJson({ ...task, network: 'host' }, 'o', undefined, []), {
    Hostname: 'h1',
    HostConfig: { NetworkMode: 'host', Dns: ['10.0.0.1'] },
  });
});
