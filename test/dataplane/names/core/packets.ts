import dnsPacket, { type RecordType } from 'dns-packet';

export type AnyRecordType = RecordType | 'ANY';

/** A query as clients send it. */
export function encode(
  name: string,
  type: AnyRecordType,
  options: {
    readonly ednsVersion?: number;
    readonly payloadBytes?: number;
    readonly id?: number;
  } = {},
): Buffer {
  const opt = {
    type: 'OPT' as const,
    name: '.' as const,
    udpPayloadSize: options.payloadBytes ?? 4096,
    extendedRcode: 0,
    ednsVersion: options.ednsVersion ?? 0,
    flags: 0,
    flag_do: false,
    options: [],
  };
  const wantsEdns = options.ednsVersion !== undefined || options.payloadBytes !== undefined;
  return dnsPacket.encode({
    type: 'query',
    id: options.id ?? 1,
    flags: dnsPacket.RECURSION_DESIRED,
    questions: [{ name, type: type as RecordType, class: 'IN' }],
    additionals: wantsEdns ? [opt] : [],
  });
}

/** The part of a reply that tests look at. */
export function decode(message: Buffer): {
  readonly id: number;
  readonly rcode: string;
  readonly truncated: boolean;
  readonly answers: string[];
} {
  const packet = dnsPacket.decode(message);
  return {
    id: packet.id ?? -1,
    rcode: (packet as { rcode?: string }).rcode ?? '',
    truncated: packet.flag_tc,
    answers: (packet.answers ?? []).map((a) =>
      a.type === 'SRV'
        ? [a.data.priority ?? 0, a.data.weight ?? 0, a.data.port, a.data.target].join(' ')
        : String((a as { data: unknown }).data),
    ),
  };
}
