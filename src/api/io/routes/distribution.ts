import { ApiError } from '../../wire/errors.js';
import { json, type Route } from '../call.js';

const registryless = { Descriptor: { mediaType: '', digest: '', size: 0 }, Platforms: [] };

/**
 * The image that is none: commands of the host itself, whatever its tag is. Without a digest the CLI
 * leaves the name as it is, and does not warn.
 */
export const hostImageRoute: Route = {
  method: 'GET',
  path: '/distribution/:image(^host$|^host:.+$)/json',
  handle: () => json(registryless),
};

/**
 * What a registry knows of an image. The CLI asks before it makes a service, in order to name the image
 * by its digest, and goes on with a warning where it gets no answer.
 */
export const distributionRoute: Route = {
  method: 'GET',
  path: '/distribution/*',
  handle: (call) => {
    const name = call.param('*').replace(/\/json$/, '');
    throw new ApiError(
      { code: 'API_UNSUPPORTED' },
      `no registry can be asked for ${name}: there is no container engine here`,
    );
  },
};
