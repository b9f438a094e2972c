//! URI and environment become one typed configuration; every default is here.
