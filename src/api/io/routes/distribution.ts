import { ApiError } from '../../wire/errors.js';
import { json, type Route } from '../call.js';

/** The image that is none: commands of the host itself, whatever its tag is. */
const HOST_IMAGE = /^host(:[\w.-]+)?$/;

/**
 * What a registry knows of an image. The CLI asks before it makes a service, in order to name the image
 * by its digest, and goes on with a warning where it gets no answer.
 */
export function distributionRoutes(): Route[] {
  return [
    {
      method: 'GET',
      path: '/distribution/*',
      handle: (call) => {
        const [, name = ''] = /^(.*)\/json$/s.exec(call.param('*')) ?? [];
        // Without a digest the CLI leaves the name as it is, and does not warn.
        if (HOST_IMAGE.test(name))
          return json({ Descriptor: { mediaType: '', digest: '', size: 0 }, Platforms: [] });
        throw new ApiError(
          { code: 'API_UNSUPPORTED' },
          `no registry can be asked for ${name}: there is no container engine here`,
        );
      },
    },
  ];
}
