// What was asked and answered, and whether one order of it explains everything.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { root } from '../setup.mjs';

/** The checker is test code, which the build leaves out: translated here. */
async function loadChecker() {
  const { default: ts } = await import('typescript');
  const text = readFileSync(join(root, 'test/support/linearizability.ts'), 'utf8');
  const compilerOptions = { target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext };
  const folder = join(root, 'dist/chaos');
  mkdirSync(folder, { recursive: true });
  const output = join(folder, `linearizability-${process.pid}.mjs`);
  writeFileSync(output, ts.transpileModule(text, { compilerOptions }).outputText);
  const checker = await import(pathToFileURL(output).href);
  rmSync(output);
  return checker;
}

const ABSENT = '-';

/** An object that is made at most once, with contents of its own; and a register of values. */
const MODELS = {
  object: {
    initial: ABSENT,
    step(state, input, output) {
      switch (input.kind) {
        case 'create':
          if (output === 'exists') return state === ABSENT ? undefined : state;
          return state === ABSENT ? input.data : undefined;
        case 'remove':
          if (output === 'missing') return state === ABSENT ? state : undefined;
          return state === ABSENT ? undefined : ABSENT;
        default:
          return output === state ? state : undefined;
      }
    },
  },
  register: {
    initial: ABSENT,
    step(state, input, output) {
      if (input.kind === 'read') return output === state ? state : undefined;
      return state === input.from ? input.to : undefined;
    },
  },
};

/** Operations of all clients, as they began and ended. */
export class History {
  #operations = { object: [], register: [] };
  /** Names of which it was said that certainly nothing was made. */
  #refused = new Map();
  counts = { done: 0, refused: 0, unknown: 0, stale: 0, conflict: 0 };

  /**
   * @param outcome `done` with an output, or `unknown`: it may have taken effect at any time since,
   *   or never. What had no effect, and tells nothing, is not recorded.
   */
  add(model, key, input, callMs, outcome, output) {
    const returnMs = outcome === 'unknown' ? undefined : performance.now();
    this.#operations[model].push({ key, input, output, callMs, returnMs });
  }

  count(outcome) {
    this.counts[outcome] = (this.counts[outcome] ?? 0) + 1;
  }

  refuse(name, by) {
    this.#refused.set(name, by);
  }

  get size() {
    return this.#operations.object.length + this.#operations.register.length;
  }

  /** What each object must be at the end: `present`, `absent`, or nothing that is certain. */
  #expected() {
    const expected = new Map();
    for (const { key, input, output, returnMs } of this.#operations.object) {
      const known = expected.get(key) ?? { created: 0, maybeRemoved: false, data: undefined };
      if (input.kind === 'create' && returnMs !== undefined && output === 'done') {
        known.created += 1;
        known.data = input.data;
      }
      if (input.kind === 'create' && returnMs === undefined) known.maybeCreated = true;
      if (input.kind === 'remove' && output !== 'missing') known.maybeRemoved = true;
      expected.set(key, known);
    }
    return expected;
  }

  /**
   * Acknowledged creates that are gone, or that are there twice, or with other contents; and what is
   * there though it was refused.
   *
   * @param found By name: the contents, one for each object of that name.
   */
  checkFinal(found) {
    const violations = [];
    const expected = this.#expected();
    for (const [name, { created, maybeRemoved, data }] of expected) {
      const there = found.get(name) ?? [];
      if (created > 1) violations.push(`${name} was acknowledged ${created} times`);
      if (there.length > 1) violations.push(`${name} is there ${there.length} times`);
      if (created === 1 && !maybeRemoved && there.length === 0)
        violations.push(`lost: ${name} was acknowledged and is gone`);
      if (there.length === 1 && data !== undefined && there[0] !== data)
        violations.push(`${name} holds ${there[0]}, and ${data} was acknowledged`);
    }
    for (const [name, by] of this.#refused) {
      const { created = 0, maybeCreated = false } = expected.get(name) ?? {};
      if (created === 0 && !maybeCreated && found.has(name))
        violations.push(`${name} was made, though it was refused: ${by}`);
    }
    return violations;
  }

  async checkOrder() {
    const { checkLinearizable } = await loadChecker();
    const results = [];
    for (const [name, model] of Object.entries(MODELS)) {
      const verdict = checkLinearizable(model, this.#operations[name]);
      if (verdict.kind === 'linearizable') continue;
      const stuck = verdict.stuck && JSON.stringify(verdict.stuck);
      results.push(`${name} ${verdict.key}: ${verdict.kind}${stuck ? `: ${stuck}` : ''}`);
    }
    return results;
  }

  /** Of every object at once: what a list of all showed. */
  addFinal(callMs, found) {
    for (const key of new Set(this.#operations.object.map((one) => one.key)))
      this.add('object', key, { kind: 'read' }, callMs, 'done', found.get(key)?.[0] ?? ABSENT);
  }
}
