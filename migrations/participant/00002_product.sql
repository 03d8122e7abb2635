-- The product's own tables, sharded by the first column of their primary keys (DESIGN section 6).

-- +goose Up

CREATE TABLE public.accounts (
    id      text PRIMARY KEY,
    balance bigint NOT NULL CHECK (balance >= 0)
);

CREATE TABLE public.stock (
    sku      text PRIMARY KEY,
    quantity bigint NOT NULL CHECK (quantity >= 0)
);

CREATE TABLE public.orders (
    customer text,
    order_id uuid,
    sku      text,
    quantity bigint,
    amount   bigint,
    PRIMARY KEY (customer, order_id)
);

-- +goose Down

-- These hold people's money: dropped only when empty.
LOCK TABLE public.accounts, public.stock, public.orders IN ACCESS EXCLUSIVE MODE;

-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM public.accounts) OR EXISTS (SELECT FROM public.stock) OR EXISTS (SELECT FROM public.orders) THEN
        RAISE EXCEPTION 'accounts, stock or orders hold rows and are not dropped'
            USING ERRCODE = 'restrict_violation';
    END IF;
END
$$;
-- +goose StatementEnd

DROP TABLE public.orders;
DROP TABLE public.stock;
DROP TABLE public.accounts;
