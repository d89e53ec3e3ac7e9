import { CliError } from '../error.js';

/** What is wrong in a compose file, and where: `services.web.ports[0]: …`. */
export function composeError(where: string, message: string): CliError {
  return new CliError({ code: 'CLI_SPEC' }, where === '' ? message : `${where}: ${message}`);
}
