import { type Constraint, parseConstraint } from '../../../base/constraint.js';

/**
 * `storage==ssd`, `node!=/node[12]/`, `image==~busy*`: the grammar that the constraints of services
 * have too, with the classic Swarm's words for what is none.
 */
export function parseExpression(text: string): Constraint | string {
  const parsed = parseConstraint(text);
  if (typeof parsed !== 'string') return parsed;
  if (!/==|!=/.test(text)) return 'One of operator ==, != is expected';
  return parsed.charAt(0).toUpperCase() + parsed.slice(1);
}

/** As the classic Swarm repeats it in refusals: without the sign of a wish. */
export const expressionText = ({ key, isEqual, value }: Constraint): string =>
  `${key}${isEqual ? '==' : '!='}${value}`;
