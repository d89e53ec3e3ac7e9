import { closeSync, fdatasyncSync, fsyncSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';

/** The disk's own rate: whoever makes writes durable one by one is not faster. */
export interface DiskRate {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

const BLOCK_BYTES = 4_096;
const FILE_BYTES = 64 << 20;

/** One write of 4 KiB and one fdatasync after another, into a file whose blocks are there. */
export function measureDisk(folder: string, seconds: number): DiskRate {
  const path = join(folder, 'disk');
  const file = openSync(path, 'w');
  try {
    const megabyte = Buffer.alloc(1 << 20, 1);
    for (let at = 0; at < FILE_BYTES; at += megabyte.length)
      writeSync(file, megabyte, 0, megabyte.length, at);
    fsyncSync(file);
    const block = Buffer.alloc(BLOCK_BYTES, 2);
    const tookMs: number[] = [];
    const endMs = performance.now() + seconds * 1_000;
    for (
      let at = 0, nowMs = performance.now();
      nowMs < endMs;
      at = (at + BLOCK_BYTES) % FILE_BYTES
    ) {
      writeSync(file, block, 0, BLOCK_BYTES, at);
      fdatasyncSync(file);
      const afterMs = performance.now();
      tookMs.push(afterMs - nowMs);
      nowMs = afterMs;
    }
    tookMs.sort((a, b) => a - b);
    const quantile = (share: number) => tookMs[Math.floor((tookMs.length - 1) * share)] ?? 0;
    return { perSecond: tookMs.length / seconds, p50Ms: quantile(0.5), p99Ms: quantile(0.99) };
  } finally {
    closeSync(file);
    rmSync(path);
  }
}
