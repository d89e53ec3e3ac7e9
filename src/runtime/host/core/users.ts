/** Who a task runs as. */
export interface Identity {
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
  readonly home: string;
}

const ID_MAX = 0xffff_fffe;

const rows = (text: string) =>
  text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split(':'));

function idOf(text: string): number | undefined {
  if (!/^\d+$/.test(text)) return undefined;
  const id = Number(text);
  return id <= ID_MAX ? id : undefined;
}

/**
 * Reads `user`, `user:group`, by names or numbers, against the texts of `/etc/passwd` and `/etc/group`, in the
 * manner of Docker: a name brings its groups with it, a number need not exist.
 *
 * @param user Empty: root.
 * @returns The identity, or in one sentence why there is none.
 */
export function identityOf(
  user: string,
  extraGroups: readonly string[],
  passwd: string,
  group: string,
): Identity | string {
  const [userPart = '', groupPart] = user.split(':');
  const name = userPart === '' ? '0' : userPart;
  const users = rows(passwd);
  const groups = rows(group);
  const row = users.find(([n]) => n === name) ?? users.find(([, , id]) => id === name);
  const uid = idOf(row?.[2] ?? name);
  if (uid === undefined) return `unable to find user ${name}: no matching entries in passwd file`;

  const gidOf = (text: string) => idOf(groups.find(([n]) => n === text)?.[2] ?? text);
  const gid =
    groupPart === undefined || groupPart === '' ? (idOf(row?.[3] ?? '') ?? 0) : gidOf(groupPart);
  if (gid === undefined) {
    return `unable to find group ${groupPart}: no matching entries in group file`;
  }
  const login = row?.[0];
  const further =
    groupPart === undefined && login !== undefined
      ? groups.filter(([, , , members = '']) => members.split(',').includes(login))
      : [];
  const ids = new Set(further.map(([, , id = '']) => idOf(id)).filter((id) => id !== undefined));
  for (const extra of extraGroups) {
    const id = gidOf(extra);
    if (id === undefined) return `unable to find group ${extra}: no matching entries in group file`;
    ids.add(id);
  }
  return { uid, gid, groups: [...ids], home: row?.[5] || '/' };
}
