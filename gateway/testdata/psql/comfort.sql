\d accounts
\dt accounts
\d nosuch
\l nosuch
\df nosuch
\dn public
\di accounts*
\d+ accounts
select 1 as one, 'x' as two \gdesc
select id from accounts where id = '@a' \gdesc
\set ON_ERROR_ROLLBACK on
begin;
select 1/0;
update accounts set balance = balance + 1 where id = '@a';
select nocolumn from accounts where id = '@b';
commit;
select balance from accounts where id = '@a';
\set ON_ERROR_ROLLBACK off
select 1 as x \gset
\echo :x
select pg_catalog.quote_ident(c.relname) from pg_catalog.pg_class c where c.relkind in ('r', 'S', 'v', 'm', 'f', 'p') and substring(pg_catalog.quote_ident(c.relname),1,3)='acc' and pg_catalog.pg_table_is_visible(c.oid) limit 1000;
prepare p as select 1;
execute p;
