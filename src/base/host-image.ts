/** The image `host`, with any tag or digest, wherever a client says that it comes from. */
const HOST_IMAGE = /^(?:docker\.io\/)?(?:library\/)?host(?:[:@].*)?$/;

/** Whether a task is a command of its host; all other images need a container engine. */
export const isHostImage = (image: string): boolean => HOST_IMAGE.test(image);

/** Type of plugin by which nodes tell managers what runs their tasks: `host`, `engine`. Users see none of it. */
export const RUNTIME_PLUGIN = 'Runtime';
