/** Halves of the names that services get whose users name none. */
const QUALITIES = [
  ...['able', 'agile', 'amber', 'bold', 'brave', 'brisk', 'calm', 'clear', 'clever', 'cosy'],
  ...['deft', 'eager', 'early', 'fair', 'fleet', 'fond', 'free', 'gentle', 'glad', 'golden'],
  ...['grand', 'happy', 'hardy', 'keen', 'kind', 'lively', 'loyal', 'lucid', 'merry', 'mild'],
  ...['neat', 'nimble', 'noble', 'polite', 'proud', 'quick', 'quiet', 'ready', 'serene', 'sharp'],
  ...['silver', 'smart', 'spry', 'steady', 'still', 'sunny', 'swift', 'tidy', 'vivid', 'warm'],
];
const FISHES = [
  ...['anchovy', 'barbel', 'bass', 'bleak', 'bream', 'brill', 'burbot', 'carp', 'catfish', 'char'],
  ...['chub', 'cod', 'dace', 'darter', 'dorado', 'eel', 'flounder', 'garfish', 'goby', 'grayling'],
  ...['gudgeon', 'gurnard', 'haddock', 'hake', 'halibut', 'herring', 'ide', 'lamprey', 'ling'],
  ...['loach', 'mackerel', 'minnow', 'mullet', 'perch', 'pike', 'plaice', 'pollack', 'roach'],
  ...['rudd', 'salmon', 'sardine', 'shad', 'smelt', 'sole', 'sprat', 'sturgeon', 'tench', 'trout'],
  ...['tuna', 'turbot', 'vendace', 'wels', 'whiting', 'wrasse', 'zander'],
];

/** @param pick A whole number from 0, less than its argument. */
export function randomName(pick: (count: number) => number): string {
  return `${QUALITIES[pick(QUALITIES.length)]}_${FISHES[pick(FISHES.length)]}`;
}
