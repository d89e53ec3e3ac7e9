/**
 * The image of sandboxes: one program that does nothing, for as long as its network namespace is
 * needed. Made here byte by byte, so that a node without a registry has it too.
 *
 * ELF64, little-endian, static, one segment that is read and executed:
 *
 *   0          64               120
 *  +----------+----------------+----------------+
 *  | header   | program header | instructions   |
 *  +----------+----------------+----------------+
 */
const ELF_HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;
const CODE_OFFSET = ELF_HEADER_BYTES + PROGRAM_HEADER_BYTES;
const LOAD_ADDRESS = 0x40_0000n;
/** The largest page of either machine. */
const ALIGNMENT = 0x1_0000n;
const ET_EXEC = 2;
const PT_LOAD = 1;
const PF_R_X = 5;

const MACHINES = {
  /** `mov eax, 34 (pause); syscall; jmp` back to the start. */
  x64: { machine: 62, code: 'b8220000000f05ebf7' },
  /**
   * `x0` to `x3` = 0, `x8` = 73 (ppoll, for there is no pause), `svc`, branch back to the start:
   * a poll of nothing without a time limit.
   */
  arm64: {
    machine: 183,
    code: '000080d2010080d2020080d2030080d2280980d2010000d4faffff17',
  },
} as const;

export type PauseMachine = keyof typeof MACHINES;

/** The program itself. */
export function pauseProgram(of: PauseMachine): Buffer {
  const { machine, code } = MACHINES[of];
  const instructions = Buffer.from(code, 'hex');
  const elf = Buffer.alloc(CODE_OFFSET);
  elf.write('\x7fELF', 0, 'latin1');
  elf.set([2, 1, 1], 4); // 64 bits, little-endian, version 1
  elf.writeUInt16LE(ET_EXEC, 16);
  elf.writeUInt16LE(machine, 18);
  elf.writeUInt32LE(1, 20);
  elf.writeBigUInt64LE(LOAD_ADDRESS + BigInt(CODE_OFFSET), 24);
  elf.writeBigUInt64LE(BigInt(ELF_HEADER_BYTES), 32);
  elf.writeUInt16LE(ELF_HEADER_BYTES, 52);
  elf.writeUInt16LE(PROGRAM_HEADER_BYTES, 54);
  elf.writeUInt16LE(1, 56);
  const size = BigInt(CODE_OFFSET + instructions.length);
  elf.writeUInt32LE(PT_LOAD, 64);
  elf.writeUInt32LE(PF_R_X, 68);
  elf.writeBigUInt64LE(LOAD_ADDRESS, 80);
  elf.writeBigUInt64LE(LOAD_ADDRESS, 88);
  elf.writeBigUInt64LE(size, 96);
  elf.writeBigUInt64LE(size, 104);
  elf.writeBigUInt64LE(ALIGNMENT, 112);
  return Buffer.concat([elf, instructions]);
}

const BLOCK_BYTES = 512;

/** A tar (POSIX ustar) of one executable file. */
export function tarOf(name: string, content: Uint8Array): Buffer {
  const head = Buffer.alloc(BLOCK_BYTES);
  head.write(name, 0);
  head.write('0000755\0', 100);
  head.write('0000000\0', 108);
  head.write('0000000\0', 116);
  head.write(`${content.length.toString(8).padStart(11, '0')}\0`, 124);
  head.write('00000000000\0', 136);
  // The sum is taken with blanks in its own place.
  head.write('        ', 148);
  head.write('0', 156);
  head.write('ustar\x0000', 257);
  const sum = head.reduce((total, byte) => total + byte, 0);
  head.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  const padding = Buffer.alloc((BLOCK_BYTES - (content.length % BLOCK_BYTES)) % BLOCK_BYTES);
  return Buffer.concat([head, content, padding, Buffer.alloc(2 * BLOCK_BYTES)]);
}
