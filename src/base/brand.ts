declare const brand: unique symbol;

/** A primitive that the compiler keeps apart from its siblings: `Brand<number, 'Vni'>`. */
export type Brand<Base, Name extends string> = Base & { readonly [brand]: Name };
