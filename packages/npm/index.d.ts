/** What a database is opened with: its replica, and the settings that the library's `docs/settings.md` lists, in any spelling. */
export interface Settings {
  /** The URL of the replica, or several. Without it the configuration file must have an entry for the database. */
  replica?: string | string[];
  /** `"replica"` reads the replica: nothing of the file is read or written. */
  role?: "primary" | "replica";
  [setting: string]: string | number | boolean | string[] | null | undefined;
}

/** A connection of better-sqlite3, `bun:sqlite` or `node:sqlite` (opened with `allowExtension: true`). */
interface Synchronous {
  loadExtension(path: string): unknown;
}

/** A connection of node-sqlite3. */
interface Asynchronous {
  loadExtension(path: string, callback?: (error: Error | null) => void): unknown;
  all: Function;
  each: Function;
}

/** The path of the shared library, for hosts that load it themselves. `LITESTREAM_VFS_LIB` names another one. */
export declare function getLoadablePath(): string;

/** Loads the library into a connection, once in a process: every later connection has the VFS and the functions. */
export declare function load(db: Asynchronous): Promise<void>;
export declare function load(db: Synchronous): void;

/** The URI that opens a database so, for hosts that take URIs (node-sqlite3, `node:sqlite`), after `load`. */
export declare function uri(file: string, settings?: Settings): string;

/**
 * From now on whoever opens `file` in this process with `Database`, the class of better-sqlite3, `bun:sqlite` or `node:sqlite`, gets it with these
 * settings: for libraries that open databases themselves, such as Knex. `null` takes them back.
 */
export declare function configure(Database: new (...options: any[]) => any, file: string, settings: Settings | null): void;

/** Opens `file` as a primary or a replica: at once with better-sqlite3, `bun:sqlite` and `node:sqlite`, as a promise with node-sqlite3. */
export declare function connect<T extends object>(
  Database: new (...options: any[]) => T, file: string, settings?: Settings, options?: object,
): T extends Asynchronous ? Promise<T> : T;
