import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { openTcpListenerInNetns } from '../../src/dataplane/io/index.js';

const PORT = 5000;
const MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';

interface Blob {
  readonly type: string;
  readonly digest: string;
  readonly bytes: Uint8Array;
}

/** A registry of images that shows its one image, `tiny:1`, to whoever says the right name and password. */
export class Registry {
  static readonly user = 'keeper';
  static readonly password = 'let me in';
  /** As engines of its namespace call it: they speak plain HTTP with what is on the loopback interface. */
  static readonly host = `127.0.0.1:${PORT}`;
  static readonly image = `${Registry.host}/tiny:1`;

  readonly digest: string;
  /** How often the image's files were given. */
  given = 0;
  readonly #layer: string;
  readonly #blobs: ReadonlyMap<string, Blob>;
  readonly #server: Server;

  private constructor(layer: Uint8Array) {
    const tar = blobOf('application/vnd.docker.image.rootfs.diff.tar', layer);
    const config = jsonBlob('application/vnd.docker.container.image.v1+json', {
      architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
      os: 'linux',
      config: { Cmd: ['sleep', '1000000'] },
      rootfs: { type: 'layers', diff_ids: [tar.digest] },
    });
    const manifest = jsonBlob(MANIFEST, {
      schemaVersion: 2,
      mediaType: MANIFEST,
      config: described(config),
      layers: [described(tar)],
    });
    this.digest = manifest.digest;
    this.#layer = tar.digest;
    this.#blobs = new Map([
      ['/v2/', jsonBlob('application/json', {})],
      ['/v2/tiny/manifests/1', manifest],
      ...[manifest, config, tar].flatMap((blob) =>
        ['manifests', 'blobs'].map((kind) => [`/v2/tiny/${kind}/${blob.digest}`, blob] as const),
      ),
    ]);
    this.#server = createServer((request, response) => this.#answer(request, response));
  }

  /** @param layer The image's files, as a tar. */
  static open(netns: string, layer: Uint8Array): Registry {
    const registry = new Registry(layer);
    registry.#server.listen({ fd: openTcpListenerInNetns(netns, '127.0.0.1', PORT) });
    return registry;
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  #answer({ headers, method, url = '' }: IncomingMessage, response: ServerResponse): void {
    const right = Buffer.from(`${Registry.user}:${Registry.password}`).toString('base64');
    if (headers.authorization !== `Basic ${right}`) {
      response.writeHead(401, { 'WWW-Authenticate': 'Basic realm="tiny"' });
      response.end(JSON.stringify({ errors: [{ code: 'UNAUTHORIZED' }] }));
      return;
    }
    const blob = this.#blobs.get(url);
    if (blob === undefined) {
      response.writeHead(404).end();
      return;
    }
    if (method === 'GET' && blob.digest === this.#layer) this.given += 1;
    response.writeHead(200, {
      'Content-Type': blob.type,
      'Content-Length': blob.bytes.length,
      'Docker-Content-Digest': blob.digest,
    });
    response.end(method === 'HEAD' ? undefined : blob.bytes);
  }
}

function blobOf(type: string, bytes: Uint8Array): Blob {
  return { type, bytes, digest: `sha256:${createHash('sha256').update(bytes).digest('hex')}` };
}

const jsonBlob = (type: string, value: unknown) => blobOf(type, Buffer.from(JSON.stringify(value)));

const described = ({ type, digest, bytes }: Blob) => ({
  mediaType: type,
  size: bytes.length,
  digest,
});
