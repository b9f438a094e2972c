"""What the end-to-end tests, the soak and the benchmarks drive: servers, hosts, oracles.

    paths      where the library, the hosts and the peers are
    wait       poll for a condition until a deadline
    proc       memory, threads, descriptors and CPU of a process
    s3         a real S3 server on a free port
    proxy      an HTTP proxy that counts requests, and fails them when told
    scratch    a folder and a replica for a script
    location   one replica, in a folder or in a bucket, and the URLs that name it
    shell      long-lived sessions of the sqlite3 shell
    worker     Python hosts (the stdlib's sqlite3, apsw) driven by JSON lines
    litestream the real Litestream: replicate, restore, its VFS
    sql        statements that many tests need
    transcript transcripts of several shells at once, with expected output
    compare    the content of a database, for equality
    workload   seeded mixed work that keeps an invariant
    soak       that work on a primary, with replicas that read
    script     programs of a few lines, each run to its end
    outage     an application that writes on while its store is in trouble
    small_disk a file system that a test can fill
    between    a VFS that runs a step in the middle of a checkpoint
    torture    SQLite's own test programs
    history    levels, snapshots and retention, restored at many moments
    crash      that a process is killed or closed while threads write, again and again
    big        a database with a lock page, and what it costs in memory
"""
