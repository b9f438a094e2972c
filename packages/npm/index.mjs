import library from "./index.cjs";

export const { configure, connect, getLoadablePath, load, uri } = library;
