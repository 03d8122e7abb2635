#!/usr/bin/perl
# DBD::Pg: libpq, placeholders prepared on the server, arrays, savepoints, COPY, asynchronous queries and cancel.
use strict;
use warnings;
use utf8;
use DBI qw(:sql_types);
use DBD::Pg qw(:pg_types :async);
use Data::Dumper;

$| = 1;
binmode STDOUT, ":utf8";
$Data::Dumper::Indent = 0;
$Data::Dumper::Terse = 1;
$Data::Dumper::Sortkeys = 1;
$Data::Dumper::Useqq = 1;
print "driver: $DBD::Pg::VERSION DBI $DBI::VERSION\n";

sub open_it { return DBI->connect("dbi:Pg:@_", undef, undef, { RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1 }) }
$ENV{DBI_DSN} = "";
my $dbh = open_it();
$SIG{__WARN__} = sub { print "warning: @_" };

sub show { print join(" ", map { ref $_ ? Dumper($_) : defined $_ ? $_ : "undef" } @_), "\n" }

sub report {
    my $text = shift;
    $text =~ s/ at \S+ line \d+\.?\n?$//;
    show("error:", $dbh->state, $text);
    show(map { $dbh->pg_error_field($_) } qw(severity state primary detail hint statement_position schema table column constraint)) if $dbh->state;
}
sub fails { my $code = shift; if (eval { $code->(); 1 }) { show("no error") } else { report($@) } }

sub section {
    my ($name, $code) = @_;
    print "== $name\n";
    report($@) unless eval { $code->(); 1 };
    eval { $dbh->rollback } unless $dbh->{AutoCommit};
    $dbh->{AutoCommit} = 1;
}
sub balances { return [map { $dbh->selectrow_array("select balance from accounts where id = ?", undef, $_) } qw(alice bob)] }

section "connect", sub {
    show($dbh->{pg_server_version}, $dbh->{pg_db}, $dbh->{pg_user}, $dbh->{pg_protocol}, $dbh->ping, $dbh->pg_ping, $dbh->{pg_standard_conforming_strings});
    show($dbh->get_info(17), $dbh->get_info(18));
    show($dbh->selectall_arrayref("select current_user, current_database(), 1"));
};

section "parameters", sub {
    my @row = ("t-1", -2147483648, "9223372036854775807", "naïve € 😀 'quoted' \\ back\nline", "0b7e3f5c-4c8e-4d3b-9a6e-1f2d3c4b5a69", "12345678901234567890.000123456789",
        "2024-02-29 23:59:58.123456+00", 1, 0.1, join("", map { chr } 0 .. 255), '{"a": [1, null, "u"]}', [1, undef, 3], ["x", undef, 'a "b"']);
    my $insert = $dbh->prepare("insert into types_demo (id, i, b, t, u, n, ts, f, d, y, j, a, ta) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    $insert->bind_param(10, undef, { pg_type => PG_BYTEA });
    show($insert->execute(@row), $insert->execute("t-2", (undef) x 12));
    my $select = $dbh->prepare("select * from types_demo where id = ?");
    for my $key (qw(t-1 t-2)) {
        $select->execute($key);
        show($select->{NAME}, $select->{TYPE}, $select->{PRECISION}, $select->{NULLABLE}, $select->{pg_type});
        show($select->fetchall_arrayref);
    }
    show($dbh->selectrow_arrayref('select $1::int, $2::text, $1::text', undef, 7, "x"));
    fails(sub { $dbh->selectrow_arrayref("select balance from accounts where id = 'alice' and balance = ?", undef, "x") });
};

section "prepared", sub {
    my $update = $dbh->prepare("update accounts set balance = balance + ? where id = ? returning id, balance");
    for my $n (0 .. 19) {
        $update->execute($n, sprintf("d-%02d", $n));
        show($update->fetchall_arrayref, $update->rows);
    }
    for my $n (1 .. 3) { $dbh->prepare("select balance, $n from accounts where id = ?")->execute("alice") }
};

section "transfer", sub {
    $dbh->begin_work;
    show($dbh->do("update accounts set balance = balance - ? where id = ?", undef, 100, "alice"));
    show($dbh->do("update accounts set balance = balance + ? where id = ?", undef, 100, "bob"));
    $dbh->commit;
    show(balances());
};

section "check", sub {
    $dbh->begin_work;
    $dbh->do("update accounts set balance = balance + 5000 where id = 'bob'");
    fails(sub { $dbh->do("update accounts set balance = balance - 5000 where id = 'alice'") });
    show($dbh->ping);
    fails(sub { $dbh->do("select 1") });
    fails(sub { $dbh->commit });
    show(balances());
};

section "savepoint", sub {
    $dbh->begin_work;
    $dbh->do("update accounts set balance = balance - 1 where id = 'alice'");
    $dbh->pg_savepoint("s");
    fails(sub { $dbh->do("insert into accounts values ('bob', 1)") });
    $dbh->pg_rollback_to("s");
    $dbh->do("update accounts set balance = balance + 1 where id = 'bob'");
    $dbh->pg_release("s");
    $dbh->commit;
    show(balances());
};

section "batch", sub {
    my $insert = $dbh->prepare("insert into accounts values (?, ?)");
    $dbh->begin_work;
    my @status;
    show(scalar $insert->execute_array({ ArrayTupleStatus => \@status }, [map { sprintf "k-%02d", $_ } 0 .. 11], [0 .. 11]), \@status);
    $dbh->commit;
    show([sort { $a->[0] cmp $b->[0] } @{ $dbh->selectall_arrayref("select id, balance from accounts where id = any(?)", undef, [map { sprintf "k-%02d", $_ } 0 .. 11]) }]);
    show($dbh->do("update accounts set balance = 1 where id = 'k-01'; update accounts set balance = 2 where id = 'k-02'; update accounts set balance = 3 where id = 'k-03'"));
};

section "cursor", sub {
    $dbh->begin_work;
    $dbh->do("declare part cursor for select quantity from orders where customer = 'carol' order by order_id");
    my $sum = 0;
    while (1) {
        my $rows = $dbh->selectall_arrayref("fetch 10 from part");
        last unless @$rows;
        $sum += $_->[0] for @$rows;
    }
    show($sum);
    $dbh->commit;
};

section "copy", sub {
    $dbh->do("copy accounts from stdin");
    $dbh->pg_putcopydata("c-$_\t$_\n") for 0 .. 9;
    show($dbh->pg_putcopyend);
    my @lines;
    $dbh->do("copy (select quantity, sku from orders where customer = 'carol' order by order_id limit 5) to stdout");
    while ($dbh->pg_getcopydata(my $line) >= 0) { push @lines, $line }
    show(\@lines);
    @lines = ();
    $dbh->do("copy accounts to stdout");
    while ($dbh->pg_getcopydata(my $line) >= 0) { push @lines, $line }
    show([sort @lines]);
    $dbh->do("copy accounts from stdin");
    $dbh->pg_putcopydata("f-1\t1\nf-2\tx\n");
    fails(sub { $dbh->pg_putcopyend });
    show(balances());
};

section "cancel", sub {
    my $sth = $dbh->prepare("select pg_sleep(30)", { pg_async => PG_ASYNC });
    $sth->execute;
    show($dbh->pg_ready);
    select(undef, undef, undef, 0.3);
    show($dbh->pg_cancel, $dbh->state);
    show($dbh->selectrow_arrayref("select 1"));
    # The way of Perl programs with a time limit.
    local $SIG{ALRM} = sub { $dbh->pg_cancel };
    my $slow = $dbh->prepare("select 5, pg_sleep(0.1)", { pg_async => PG_ASYNC });
    $slow->execute;
    show($slow->pg_result, $slow->fetchrow_arrayref->[0]);
};

section "errors", sub {
    for my $statement ("selec 1", "select * from no_such_table", "select 1/0", "insert into accounts values ('x', null)", "insert into accounts values ('alice', 1)",
        "select no_such_column from accounts where id = 'alice'", "select 'a'::int", "update accounts set balance = -1 where id = 'alice'") {
        fails(sub { $dbh->do($statement) });
        fails(sub { $dbh->selectall_arrayref($statement) });
    }
    $dbh->do($_) for qw(begin begin commit commit);
};

section "reconnect", sub {
    $dbh->do("set application_name = 'first'");
    my $clone = $dbh->clone;
    show($clone->selectrow_array("show application_name") ne "first");
    $clone->disconnect;
    $dbh->disconnect;
    $dbh = open_it("application_name=second");
    show($dbh->selectrow_array("show application_name"), balances());
};

section "introspect", sub {
    show($dbh->table_info(undef, "public", undef, "TABLE")->fetchall_arrayref([1, 2, 3]));
    show($dbh->column_info(undef, "public", "orders", undef)->fetchall_arrayref([2, 3, 4, 5, 6, 10, 12, 16, 17]));
    show($dbh->primary_key(undef, "public", "orders"));
    show($dbh->statistics_info(undef, "public", "orders", 0, 0)->fetchall_arrayref([2, 3, 5, 6, 7, 8]));
    show([$dbh->tables(undef, "public", undef, "TABLE")]);
};
